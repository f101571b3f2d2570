//! The program from outside: arguments in, text and exit code out.

mod check;
mod help;
mod send;
mod sign;
mod support;
