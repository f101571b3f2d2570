//! The program from outside: arguments in, text and exit code out.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod check;
mod explain;
mod help;
mod send;
mod sign;
mod support;
