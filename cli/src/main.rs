//! The `callback-guard` program.
fn main() {}
