//! The program from outside: arguments in, text and exit code out.
#![allow(clippy::unwrap_used)]

mod check;
mod help;
mod send;
mod sign;
mod support;
