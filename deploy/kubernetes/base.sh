#!/bin/sh
# Puts the kustomize base together: the manifests, Envoy's configuration, the module, the drain script.
#
#   base.sh MODULE.wasm DIRECTORY
#   kubectl apply --kustomize DIRECTORY
set -eu

if [ $# -ne 2 ]; then
    echo "usage: $0 MODULE.wasm DIRECTORY" >&2
    exit 2
fi
module=$1
directory=$2
here=$(cd "$(dirname "$0")" && pwd)
if [ ! -s "$module" ]; then
    echo "$module: no such module (deploy/module.sh makes it)" >&2
    exit 1
fi
if [ -e "$directory" ]; then
    echo "$directory: there is already something" >&2
    exit 1
fi

mkdir -p "$directory"
cp "$here/guard.yaml" "$here/kustomization.yaml" "$here/../../envoy.yaml" "$here/../envoy/drain.sh" "$directory"
cp "$module" "$directory/callback_guard.wasm"
chmod 644 "$directory"/*
