# Envoy's own image with the guard in it, as a WebAssembly module and as a dynamic module: which of them Envoy
# loads is up to the file that it is started with, envoy.yaml (the default) or envoy-native.yaml.
#
#   docker build --tag callback-guard .
#   docker run --env SUNO_WEBHOOK_KEY callback-guard
#   docker run --env SUNO_WEBHOOK_KEY callback-guard envoy -c /etc/envoy/envoy-native.yaml --concurrency 2
#
# It needs no BuildKit. There is no cache of the build directory: cargo tells by the times of files
# what to build again, those that a cache keeps can be newer than the sources, and the image would
# hold an older module.

FROM rust:1.95.0-slim-bookworm AS sources
RUN rustup target add wasm32-wasip1
WORKDIR /callback-guard
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY config config
COPY core core
COPY scan scan
COPY src src
COPY native native
COPY deploy/module.sh deploy/native.sh deploy/stable-rustc.sh deploy/
# The rest of the workspace, not built here: cargo wants to know it.
COPY bench bench
COPY cli cli
COPY inbox inbox
COPY tests tests

FROM sources AS filter
RUN deploy/module.sh
# Readable by everybody, whatever the checkout's files are.
COPY envoy.yaml envoy-native.yaml ./
COPY deploy/envoy deploy/envoy
RUN mkdir /image \
    && install -m 644 target/wasm32-wasip1/release/callback_guard.wasm envoy.yaml envoy-native.yaml /image/ \
    && install -m 755 deploy/envoy/run.sh deploy/envoy/drain.sh /image/

FROM rust:1.95.0-slim-bookworm AS native
# What deploy/native.sh needs, so that the module's bytes are the same as a release's.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-pip \
    && pip install --no-cache-dir --no-deps --break-system-packages cargo-zigbuild==0.24.1 ziglang==0.17.1
COPY --from=sources /callback-guard /callback-guard
WORKDIR /callback-guard
RUN deploy/native.sh
RUN mkdir /image \
    && install -m 644 native/target/*-unknown-linux-gnu/release/libcallback_guard.so /image/

FROM envoyproxy/envoy:v1.40.0
COPY --from=filter /image/run.sh /image/drain.sh /usr/local/lib/callback-guard/
COPY --from=filter /image/callback_guard.wasm /etc/envoy/callback_guard.wasm
COPY --from=filter /image/envoy.yaml /etc/envoy/envoy.yaml
COPY --from=filter /image/envoy-native.yaml /etc/envoy/envoy-native.yaml
COPY --from=native /image/libcallback_guard.so /etc/envoy/libcallback_guard.so
# Where Envoy looks for dynamic modules.
ENV ENVOY_DYNAMIC_MODULES_SEARCH_PATH=/etc/envoy
USER 101:101
EXPOSE 10000
HEALTHCHECK --interval=10s --timeout=2s --start-period=20s \
    CMD ["/usr/local/lib/callback-guard/drain.sh", "--is-ready"]
# `docker stop` lets the deliveries in flight end: give it the time (--stop-timeout 40).
ENTRYPOINT ["/usr/local/lib/callback-guard/run.sh"]
# Two workers: what envoy.yaml's limits are made for, in 512 MiB. With `info` the guard's line for each refusal
# shows; the component is named after what Envoy has loaded.
CMD ["envoy", "-c", "/etc/envoy/envoy.yaml", "--concurrency", "2", "--component-log-level", "wasm:info,dynamic_modules:info"]
