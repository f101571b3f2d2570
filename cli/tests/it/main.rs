//! The program from outside: arguments in, text and exit code out.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod challenge;
mod check;
mod demo;
mod docs;
mod explain;
mod help;
mod https;
mod init;
mod mistakes;
mod schema;
mod send;
mod sign;
mod support;
