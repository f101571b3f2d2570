# The filter is built in the first stage and put into Envoy's own image in the second.
#
#   docker build --tag callback-guard .

FROM rust:1.95.0-slim-bookworm AS filter
RUN rustup target add wasm32-wasip1
WORKDIR /callback-guard
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY core core
COPY scan scan
COPY src src
COPY deploy/module.sh deploy/module.sh
# The rest of the workspace, not built here: cargo wants to know it.
COPY bench bench
COPY cli cli
COPY tests tests
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/callback-guard/target \
    deploy/module.sh \
    && cp target/wasm32-wasip1/release/callback_guard.wasm /callback_guard.wasm

FROM envoyproxy/envoy:v1.40.0
COPY --from=filter --chmod=644 /callback_guard.wasm /etc/envoy/callback_guard.wasm
COPY --chmod=644 envoy.yaml /etc/envoy/envoy.yaml
EXPOSE 10000
# wasm:info shows the guard's line for each refusal.
CMD ["envoy", "-c", "/etc/envoy/envoy.yaml", "--component-log-level", "wasm:info"]
