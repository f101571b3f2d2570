#!/bin/sh
# Builds the filter's module so that the same sources give the same bytes, whoever builds them where.
#
#   deploy/module.sh [--target-dir DIRECTORY] [any other option of cargo build]
#
# A panic says file and line, so plain `cargo build` writes into the module where cargo keeps the
# sources of the dependencies: a path of the machine that built it, the user's name in it. Cargo's
# own means against that, `trim-paths`, is not in its stable releases. Here the compiler is told to
# leave out the path before the name of a package.
set -eu
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
target=wasm32-wasip1

# Now, because the folders of the registries must exist to be named.
"$cargo" fetch --quiet --locked --target "$target"
flags=
for sources in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
    flags="$flags'--remap-path-prefix=$sources=', "
done
# The standard library's own, where they are installed, get the name that they have elsewhere.
rustc=${RUSTC:-rustc}
commit=$("$rustc" --version --verbose | sed -n 's/^commit-hash: //p')
flags="$flags'--remap-path-prefix=$("$rustc" --print sysroot)/lib/rustlib/src/rust=/rustc/$commit'"

# These are meant for the host's build, such as a linker's options or coverage; and the first two
# would take the place of all other flags.
unset CARGO_ENCODED_RUSTFLAGS RUSTFLAGS RUSTC_WORKSPACE_WRAPPER
exec "$cargo" build --config "target.$target.rustflags=[$flags]" \
    --locked --release --target "$target" --package callback-guard --lib "$@"
