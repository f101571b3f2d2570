//! Signs deliveries as Standard Webhooks does: the sender's own timestamp is stale by then.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The secret that deliveries are signed with.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SigningKey([redacted])")
    }
}

impl SigningKey {
    /// Reads `whsec_` and base64 of 16 to 64 bytes.
    ///
    /// # Errors
    ///
    /// What is accepted, never what was seen.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "expected `whsec_` and the base64 of 16 to 64 bytes";
        let encoded = text.trim().strip_prefix("whsec_").ok_or(EXPECTED)?;
        let key = STANDARD.decode(encoded).map_err(|_| EXPECTED)?;
        if !(16..=64).contains(&key.len()) {
            return Err(EXPECTED);
        }
        let mac = Hmac::new_from_slice(&key).map_err(|_| EXPECTED)?;
        Ok(Self(mac))
    }

    /// The value of `webhook-signature`.
    ///
    /// Source: Standard Webhooks, "Signature scheme".
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}
