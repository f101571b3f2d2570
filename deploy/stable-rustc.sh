#!/bin/sh
# The compiler for deploy/native.sh (RUSTC_WRAPPER). Cargo identifies packages outside of the
# workspace, as the core is from native/, by a hash of their path. That hash is in every symbol, so the same
# sources would give other bytes in another folder. Names are enough to identify the guard's packages.
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
