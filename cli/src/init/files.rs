//! The repository's own files, which the blocks are cut out of.

pub(super) const ENVOY: &str = include_str!("../../../envoy.yaml");
pub(super) const ISTIO: &str = include_str!("../../../deploy/istio/envoyfilter.yaml");
pub(super) const GATEWAY: &str = include_str!("../../../deploy/envoy-gateway/gateway.yaml");
pub(super) const GATEWAY_GUARD: &str = include_str!("../../../deploy/envoy-gateway/guard.yaml");
