//! Links the unwinder into the module: Envoy and the images that it comes in have no libgcc_s.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let (Some(folder), Ok(target)) = (env::var_os("OUT_DIR"), env::var("TARGET")) else {
        return;
    };
    if !target.contains("-linux-gnu") {
        return;
    }
    // The standard library asks for `-lgcc_s`. A linker looks for it here first, and finds a script
    // that names the static archives of the same functions. (zig links its own and does not look.)
    let folder = PathBuf::from(folder);
    let script = folder.join("libgcc_s.so");
    match fs::write(&script, "GROUP ( libgcc_eh.a libgcc.a )\n") {
        Ok(()) => println!("cargo::rustc-link-search=native={}", folder.display()),
        Err(error) => println!("cargo::error=cannot write {}: {error}", script.display()),
    }
}
