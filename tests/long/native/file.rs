//! What the built module demands of the machine that it runs on.

use std::fs;

use callback_guard_harness::native;

use super::abi::callbacks;
use callback_guard_support::elf;

/// The libraries that Envoy itself has loaded, and parts of the C library of their own before
/// GLIBC 2.34.
const LIBRARIES: &[&str] = &[
    "ld-linux-aarch64.so.1",
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libdl.so.2",
    "libm.so.6",
    "libpthread.so.0",
];

#[test]
fn it_needs_the_c_library_alone() {
    let module = fs::read(native::module(&|_| {}).unwrap()).unwrap();
    for library in elf::libraries(&module) {
        assert!(LIBRARIES.contains(&library.as_str()), "{library}");
    }
}

/// A function that this Envoy does not have is then an error when the module is loaded, with its name, not
/// the end of Envoy when a request comes.
#[test]
fn functions_are_bound_when_it_is_loaded() {
    let module = fs::read(native::module(&|_| {}).unwrap()).unwrap();
    assert!(elf::is_bound_when_loaded(&module));
}

#[test]
fn it_calls_those_functions_of_envoy_that_are_bound() {
    let module = fs::read(native::module(&|_| {}).unwrap()).unwrap();
    let imported = elf::imported(&module);
    let of_envoy: Vec<_> = imported
        .iter()
        .filter(|name| name.starts_with("envoy_"))
        .map(String::as_str)
        .collect();
    let mut bound = callbacks();
    bound.sort_unstable();
    assert_eq!(of_envoy, bound);
}
