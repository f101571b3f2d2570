//! Keys: what a signature is verified under, in one place.
//!
//! Nothing outside of this folder knows how long a signature is or how an algorithm works. A MAC and
//! Ed25519 are computed here; RSA and ECDSA are the host's business ([`HostVerify`]): Envoy verifies
//! them itself, so that the module carries no code for them.

mod algorithm;
mod host;
mod key;
mod mac;
#[cfg(feature = "native")]
pub mod native;
mod public;
mod signature;
#[cfg(feature = "sign")]
mod signing;
mod signing_keys;
mod token;

pub use algorithm::Algorithm;
pub use host::{HostCheck, HostVerify, NoVerifier, no_verifier, probe};
pub use key::{Key, KeyIndex, Mismatch, verify};
pub use public::{KeyError, PublicEncoding};
pub use signature::SignatureBytes;
#[cfg(feature = "sign")]
pub use signing::SigningKey;
pub use signing_keys::SigningKeys;
pub use token::Token;
