#!/bin/sh
# The compiler for deploy/native.sh (RUSTC_WRAPPER). Cargo tells packages apart by their path where they are outside
# of the workspace, as the core is from native/: that hash is in every symbol, so the same sources would give
# other bytes in another folder. The guard's own packages are told apart by their names as well.
set -eu
rustc=$1
shift
case ${CARGO_PKG_NAME:-} in
    callback-guard*)
        for argument; do
            shift
            case $argument in metadata=*) argument=metadata=$CARGO_PKG_NAME ;; esac
            set -- "$@" "$argument"
        done
        ;;
esac
exec "$rustc" "$@"
