# The filter is built in the first stage and put into Envoy's own image in the second.
#
#   docker build --tag callback-guard .
#
# It needs no BuildKit. There is no cache of the build directory: cargo tells by the times of files
# what to build again, those that a cache keeps can be newer than the sources, and the image would
# hold an older module.

FROM rust:1.95.0-slim-bookworm AS filter
RUN rustup target add wasm32-wasip1
WORKDIR /callback-guard
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY config config
COPY core core
COPY scan scan
COPY src src
COPY deploy/module.sh deploy/module.sh
# The rest of the workspace, not built here: cargo wants to know it.
COPY bench bench
COPY cli cli
COPY inbox inbox
COPY tests tests
RUN deploy/module.sh
# Readable by everybody, whatever the checkout's files are.
COPY envoy.yaml envoy.yaml
COPY deploy/envoy deploy/envoy
RUN mkdir /image \
    && install -m 644 target/wasm32-wasip1/release/callback_guard.wasm envoy.yaml /image/ \
    && install -m 755 deploy/envoy/run.sh deploy/envoy/drain.sh /image/

FROM envoyproxy/envoy:v1.40.0
COPY --from=filter /image/run.sh /image/drain.sh /usr/local/lib/callback-guard/
COPY --from=filter /image/callback_guard.wasm /etc/envoy/callback_guard.wasm
COPY --from=filter /image/envoy.yaml /etc/envoy/envoy.yaml
USER 101:101
EXPOSE 10000
HEALTHCHECK --interval=10s --timeout=2s --start-period=20s \
    CMD ["/usr/local/lib/callback-guard/drain.sh", "--is-ready"]
# `docker stop` lets the deliveries in flight end: give it the time (--stop-timeout 40).
ENTRYPOINT ["/usr/local/lib/callback-guard/run.sh"]
# Two workers: what envoy.yaml's limits are made for, in 512 MiB. wasm:info shows the guard's line for
# each refusal.
CMD ["envoy", "-c", "/etc/envoy/envoy.yaml", "--concurrency", "2", "--component-log-level", "wasm:info"]
