//! callback-guard.
pub mod json;
