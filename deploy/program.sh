#!/bin/sh
# Builds a program for Linux, linked statically (musl), so that it runs on any distribution and in an
# empty image; the same sources give the same bytes, whoever builds them where.
#
#   deploy/program.sh callback-guard-cli [x86_64|aarch64] [--target-dir DIRECTORY] [any other option of cargo build]
#
# Needs cargo-zigbuild and zig, for what is written in C: `pip install cargo-zigbuild==0.24.1 ziglang==0.17.1`.
set -eu
cd "$(dirname "$0")/.."
if [ $# -eq 0 ]; then
    echo "usage: $0 PACKAGE [x86_64|aarch64] [options of cargo build]" >&2
    exit 2
fi
package=$1 && shift
case ${1:-} in
    x86_64 | aarch64) architecture=$1 && shift ;;
    *) architecture=$(uname -m) ;;
esac
target=$architecture-unknown-linux-musl
cargo=${CARGO:-cargo}
# In the sources' folder this is their toolchain.
[ -d "$(${RUSTC:-rustc} --print target-libdir --target "$target")" ] || rustup target add "$target"

# A panic says file and line: as in deploy/module.sh, no path of this machine is left in the program.
"$cargo" fetch --quiet --locked --target "$target"
flags="--remap-path-prefix=$PWD/="
mapped="-ffile-prefix-map=$PWD/="
for sources in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
    flags="$flags --remap-path-prefix=$sources="
    mapped="$mapped -ffile-prefix-map=$sources="
done
rustc=${RUSTC:-rustc}
commit=$("$rustc" --version --verbose | sed -n 's/^commit-hash: //p')
flags="$flags --remap-path-prefix=$("$rustc" --print sysroot)/lib/rustlib/src/rust=/rustc/$commit"

# Meant for the host's build, such as a linker's options or coverage.
unset CARGO_ENCODED_RUSTFLAGS RUSTC_WORKSPACE_WRAPPER
export RUSTFLAGS="$flags" CFLAGS="$mapped -g0"
# The demo looks for a checkout where it is started, not where it was built.
export CALLBACK_GUARD_REPOSITORY=.
exec "$cargo" zigbuild --locked --release --target "$target" --package "$package" "$@"
