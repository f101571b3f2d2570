//! Which of the two builds of the guard runs in Envoy.

use std::env;
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::{native, wasm};

/// The variable that chooses the build: `wasm` (the default) or `native`.
pub const VARIABLE: &str = "CALLBACK_GUARD_FILTER";

/// A build of the guard. Both are given the same configuration and have to behave alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    /// The WebAssembly module, `callback_guard.wasm`.
    #[default]
    Wasm,
    /// Envoy's dynamic module, `libcallback_guard.so`.
    Native,
}

impl Filter {
    /// The build that the environment asks for.
    ///
    /// # Errors
    ///
    /// If [`VARIABLE`] has another value than `wasm` or `native`.
    pub fn chosen() -> Result<Self> {
        match env::var_os(VARIABLE) {
            None => Ok(Self::Wasm),
            Some(word) if word == "wasm" => Ok(Self::Wasm),
            Some(word) if word == "native" => Ok(Self::Native),
            Some(word) => bail!("{VARIABLE}={}: expected `wasm` or `native`", word.display()),
        }
    }

    /// Builds it, and returns its file.
    ///
    /// # Errors
    ///
    /// If the build fails.
    pub fn module(self, progress: &dyn Fn(&str)) -> Result<PathBuf> {
        match self {
            Self::Wasm => wasm::module(progress),
            Self::Native => native::module(progress),
        }
    }
}
