//! RSA and ECDSA, verified by Envoy: its foreign function `verify_signature`. Hosts that have no such
//! function are found when a configuration that needs it is loaded.
//!
//! Source: Envoy, `source/extensions/common/wasm/ext/verify_signature.proto` and `foreign.cc`.

use callback_guard_core::policy::Policy;
use callback_guard_core::scheme::keys::{HostCheck, NoVerifier, probe};

use crate::host;

/// Gives `policy` the host's function, if it needs it and the function passes [`probe`].
///
/// Without it such sources are answered 503. The configuration is not refused: that must depend on
/// its text and the environment alone, as a worker that refuses what the others have accepted
/// lets every request pass around the filter.
pub(crate) fn connect(policy: &mut Policy) {
    if !policy.needs_host_verify() {
        return;
    }
    match probe(verify) {
        Ok(()) => policy.host_verify = verify,
        Err(NoVerifier) => log::error!(
            "callback-guard: this proxy has no foreign function `verify_signature` that works \
             (is it allowed in `capability_restriction_config`?): sources that need it are \
             answered 503"
        ),
    }
}

fn verify(check: &HostCheck<'_>) -> Result<bool, NoVerifier> {
    let fields = [b"sha256", check.public_key, check.signature, check.message];
    let length: usize = fields.iter().map(|bytes| bytes.len()).sum();
    let mut arguments = Vec::with_capacity(length.saturating_add(64));
    // Hash, key, signature, text. Their numbers are 1 to 4, their wire type is 2: a length, then bytes.
    for (tag, bytes) in [0x0a, 0x12, 0x1a, 0x22].into_iter().zip(fields) {
        arguments.push(tag);
        push_varint(&mut arguments, bytes.len());
        arguments.extend_from_slice(bytes);
    }
    let result = host::call_foreign_function("verify_signature", &arguments);
    // Field 1 says whether it is genuine, and is left out for `false`.
    result
        .map(|result| result.starts_with(&[0x08, 0x01]))
        .map_err(|_| NoVerifier)
}

fn push_varint(bytes: &mut Vec<u8>, mut value: usize) {
    while value > 0x7f {
        let [low, ..] = value.to_le_bytes();
        bytes.push(low | 0x80);
        value >>= 7;
    }
    let [last, ..] = value.to_le_bytes();
    bytes.push(last);
}
