#!/bin/sh
# Makes the files of a release; the same sources give the same bytes, whoever runs it where.
#
#   deploy/release.sh DIRECTORY
#
#   callback_guard.wasm                        the filter
#   libcallback_guard-ARCHITECTURE.so          the same as Envoy's dynamic module
#   callback-guard-ARCHITECTURE                the program, static
#   callback-guard-inbox-ARCHITECTURE          the inbox, static
#   *.oci.tar                                  an image of each: skopeo copy oci-archive:FILE docker://…
#   callback-guard-kubernetes.tar.gz           the kustomize base
#   config.schema.json                         the schema of the configuration, for editors
#   *.cdx.json                                 what each is made of (CycloneDX)
#   SHA256SUMS
#
# ARCHITECTURES="x86_64 aarch64" makes the native files for both; alone, for this machine's. Needs GNU
# tar, gzip, Python, and what program.sh needs. Image and notes: .github/workflows/release.yml.
set -eu
cd "$(dirname "$0")/.."
if [ $# -ne 1 ]; then
    echo "usage: $0 DIRECTORY" >&2
    exit 2
fi
if [ -e "$1" ]; then
    echo "$1: there is already something" >&2
    exit 1
fi
mkdir -p "$1"
out=$(cd "$1" && pwd)
built=${CARGO_TARGET_DIR:-target}/release-files
architectures=${ARCHITECTURES:-$(uname -m)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

step() { printf '== %s\n' "$*"; }
# DIRECTORY FILE: a tar of it, with no name, owner, mode or time of this machine in it.
pack() {
    tar --create --format=ustar --directory "$1" --sort=name --mtime=@0 --owner=0 --group=0 \
        --numeric-owner --mode='u=rwX,go=rX' "$2"
}
# FILE NAME [ARCHITECTURE]: an image of a file.
image() {
    deploy/docker/oci-image.sh "$1" "$work/$2" ${3:+"$3"} >/dev/null
    pack "$work/$2" . >"$out/$2.oci.tar"
    rm -r "${work:?}/$2"
}

step "the filter"
deploy/module.sh --target-dir "$built"
cp "$built/wasm32-wasip1/release/callback_guard.wasm" "$out/"
image "$out/callback_guard.wasm" callback-guard-filter
deploy/sbom.py callback-guard wasm32-wasip1 >"$out/callback_guard.wasm.cdx.json"
cp docs/config.schema.json "$out/"

step "the kustomize base"
deploy/kubernetes/base.sh "$out/callback_guard.wasm" "$work/callback-guard-kubernetes"
pack "$work" callback-guard-kubernetes | gzip --no-name --best >"$out/callback-guard-kubernetes.tar.gz"

for architecture in $architectures; do
    case $architecture in
        x86_64) oci=amd64 ;;
        aarch64) oci=arm64 ;;
        *) echo "$architecture: expected x86_64 or aarch64" >&2 && exit 2 ;;
    esac
    step "the programs for $architecture"
    for program in callback-guard callback-guard-inbox; do
        package=$program
        [ "$program" = callback-guard ] && package=callback-guard-cli
        target=$architecture-unknown-linux-musl
        deploy/program.sh "$package" "$architecture" --target-dir "$built"
        cp "$built/$target/release/$program" "$out/$program-$architecture"
        image "$built/$target/release/$program" "$program-$architecture" "$oci"
        deploy/sbom.py "$package" "$target" >"$out/$program-$architecture.cdx.json"
    done

    if [ -e deploy/native.sh ]; then
        step "the dynamic module for $architecture"
        deploy/native.sh "$architecture" --target-dir "$built"
        library=$built/$architecture-unknown-linux-gnu/release/libcallback_guard.so
        cp "$library" "$out/libcallback_guard-$architecture.so"
        image "$library" "callback-guard-native-$architecture" "$oci"
        deploy/sbom.py callback-guard-native "$architecture-unknown-linux-gnu" native/Cargo.toml \
            >"$out/libcallback_guard-$architecture.so.cdx.json"
    fi
done

(cd "$out" && sha256sum -- * >"$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)
cat "$out/SHA256SUMS"
