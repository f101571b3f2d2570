//! Strict JSON in one pass.
