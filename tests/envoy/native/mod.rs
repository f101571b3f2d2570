//! The native build: what of Envoy's ABI it uses, and what its file demands of the machine.

mod abi;
#[path = "../../support/elf.rs"]
#[allow(dead_code, reason = "the rest is for `tests/services`")]
mod elf;
mod file;
mod sds;
mod secrets;
