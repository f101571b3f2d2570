//! What the guard does with every byte of a body, but for SHA-256. A package of its own, as cargo
//! chooses between speed and size by package: this one is compiled for speed, the rest of the guard
//! to be small.

#![forbid(unsafe_code)]

pub mod fingerprint;
pub mod fold;
pub mod json;
