//! The native build: what of Envoy's ABI it uses, and what its file demands of the machine.

mod abi;
mod file;
mod sds;
mod secrets;
