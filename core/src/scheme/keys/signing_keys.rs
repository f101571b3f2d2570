//! The secrets of a source for those who sign. A build without the feature `sign`, as the filter is,
//! has the type and nothing in it: whoever makes a source need not know which build it is.

#[cfg(feature = "sign")]
use core::ops::{Deref, DerefMut};

use super::algorithm::Algorithm;
use super::public::KeyError;
#[cfg(feature = "sign")]
use super::signing::SigningKey;

/// The keys that sign what a source accepts, in their order.
#[derive(Debug, Default)]
pub struct SigningKeys {
    #[cfg(feature = "sign")]
    keys: Vec<SigningKey>,
}

impl SigningKeys {
    /// Whether this build keeps any.
    pub const ARE_KEPT: bool = cfg!(feature = "sign");

    /// Keeps a secret of `algorithm`, or a token where there is none.
    ///
    /// # Errors
    ///
    /// As [`Key::secret`](super::Key::secret).
    #[cfg_attr(not(feature = "sign"), expect(unused_variables))]
    pub fn keep(&mut self, algorithm: Option<Algorithm>, secret: &[u8]) -> Result<(), KeyError> {
        #[cfg(feature = "sign")]
        self.keys.push(match algorithm {
            Some(algorithm) => SigningKey::secret(algorithm, secret)?,
            None => SigningKey::token(secret),
        });
        Ok(())
    }
}

#[cfg(feature = "sign")]
impl Deref for SigningKeys {
    type Target = Vec<SigningKey>;

    fn deref(&self) -> &Self::Target {
        &self.keys
    }
}

#[cfg(feature = "sign")]
impl DerefMut for SigningKeys {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.keys
    }
}
