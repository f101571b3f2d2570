//! What a configuration is read with, beyond its text.

#[cfg(feature = "native")]
use callback_guard_core::policy::Subscription;

/// Looks up a variable of the environment that the proxy lets the filter see.
pub type Environment<'e> = &'e dyn Fn(&str) -> Option<Vec<u8>>;

/// Looks up a secret that Envoy has delivered; `None` if it has not.
#[cfg(feature = "native")]
pub type Delivered<'d> = &'d dyn Fn(&Subscription) -> Option<Vec<u8>>;

/// What a configuration is read with.
#[derive(Clone, Copy)]
pub(crate) struct Outside<'o> {
    pub(crate) build: Build,
    pub(crate) environment: Environment<'o>,
    #[cfg(feature = "native")]
    pub(crate) delivered: Delivered<'o>,
}

/// The build of the filter that a configuration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// The WebAssembly module, which has no connections of its own.
    Module,
    /// Envoy's dynamic module, which has.
    #[cfg(feature = "native")]
    Native,
}
