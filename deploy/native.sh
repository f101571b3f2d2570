#!/bin/sh
# Builds the guard as Envoy's dynamic module so that it runs on any Linux with GLIBC 2.31 (Debian 11,
# Ubuntu 20.04) or newer; the same sources give the same bytes, whoever builds them where.
#
#   deploy/native.sh [x86_64|aarch64] [--target-dir DIRECTORY] [any other option of cargo build]
#
# Needs cargo-zigbuild and zig: `pip install cargo-zigbuild==0.24.1 ziglang==0.17.1`. zig brings the C
# library's symbols as of that version, for both architectures, and an unwinder that is linked in.
set -eu
cd "$(dirname "$0")/.."
case ${1:-} in
    x86_64 | aarch64) architecture=$1 && shift ;;
    *) architecture=$(uname -m) ;;
esac
target=$architecture-unknown-linux-gnu
cargo=${CARGO:-cargo}

# A panic says file and line: as in deploy/module.sh, no path of this machine is left in the module.
"$cargo" fetch --quiet --locked --target "$target" --manifest-path native/Cargo.toml
# The separator of flags is a character that no path has.
next=$(printf '\037')
flags="--remap-path-prefix=$PWD/="
for sources in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
    flags="$flags$next--remap-path-prefix=$sources="
done
rustc=${RUSTC:-rustc}
commit=$("$rustc" --version --verbose | sed -n 's/^commit-hash: //p')
flags="$flags$next--remap-path-prefix=$("$rustc" --print sysroot)/lib/rustlib/src/rust=/rustc/$commit"

# Meant for the host's build, such as a linker's options or coverage.
unset RUSTFLAGS RUSTC_WORKSPACE_WRAPPER
export CARGO_ENCODED_RUSTFLAGS="$flags" RUSTC_WRAPPER="$PWD/deploy/stable-rustc.sh"
exec "$cargo" zigbuild --locked --release --target "$target.2.31" --manifest-path native/Cargo.toml "$@"
