#!/bin/sh
# Makes an OCI image (layout directory) of one file, in one tar+gzip layer:
#
#   NAME.wasm   the filter as plugin.wasm, in the compat form that Istio and Envoy Gateway load
#   NAME.so     the dynamic module, to be mounted into Envoy's container
#   NAME        a static program, as the entrypoint of user 65534, who may write in /data
#
# Needs GNU tar, gzip and sha256sum, and no container engine. The same file always gives the same
# bytes, so the same digest.
#
#   oci-image.sh target/wasm32-wasip1/release/callback_guard.wasm image
#   skopeo copy oci:image:latest docker://REGISTRY/callback-guard:0.2.0
#
# The module runs anywhere. The third argument is for Kubernetes image volumes alone: nodes take only
# images of their own architecture (amd64, unless given).
set -eu

if [ $# -lt 2 ] || [ $# -gt 3 ]; then
    echo "usage: $0 FILE DIRECTORY [ARCHITECTURE]" >&2
    exit 2
fi
module=$1
image=$2
architecture=${3:-amd64}
if [ ! -s "$module" ]; then
    echo "$module: no such file (deploy/module.sh makes the module)" >&2
    exit 1
fi
if [ -e "$image" ]; then
    echo "$image: there is already something" >&2
    exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$image/blobs/sha256"

digest() { sha256sum "$1" | cut -d' ' -f1; }
size() { wc -c <"$1" | tr -d ' '; }
# Moves a blob to the place of its digest, and prints that.
put() {
    digest=$(digest "$1")
    mv "$1" "$image/blobs/sha256/$digest"
    echo "$digest"
}

# No name, owner, mode or time of this machine goes into the layer.
annotations=
run=
owner=0
case $module in
    *.wasm)
        name=plugin.wasm title=callback-guard mode=0644
        annotations=',"annotations":{"module.wasm.image/variant":"compat"}'
        ;;
    *.so) name=$(basename "$module") title=callback-guard mode=0644 ;;
    *)
        name=$(basename "$module") title=$name mode=0555 owner=65534
        run="\"User\":\"65534:65534\",\"Entrypoint\":[\"/$name\"],\"WorkingDir\":\"/data\","
        ;;
esac
mkdir "$work/root"
[ -z "$run" ] || install -d -m 0755 "$work/root/data"
cp "$module" "$work/root/$name"
chmod "$mode" "$work/root/$name"
(cd "$work/root" && tar --create --format=ustar --mtime=@0 \
    --owner="$owner" --group="$owner" --numeric-owner -- *) >"$work/layer.tar"
diff_id=$(digest "$work/layer.tar")
gzip --no-name --best <"$work/layer.tar" >"$work/layer.tar.gz"
layer_size=$(size "$work/layer.tar.gz")
layer=$(put "$work/layer.tar.gz")

printf '{"created":"1970-01-01T00:00:00Z","architecture":"%s","os":"linux","config":{%s"Labels":{"org.opencontainers.image.licenses":"Apache-2.0","org.opencontainers.image.title":"%s"}},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created":"1970-01-01T00:00:00Z","comment":"%s"}]}' \
    "$architecture" "$run" "$title" "$diff_id" "$name" >"$work/config.json"
config_size=$(size "$work/config.json")
config=$(put "$work/config.json")

printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:%s","size":%s}]%s}' \
    "$config" "$config_size" "$layer" "$layer_size" "$annotations" >"$work/manifest.json"
manifest_size=$(size "$work/manifest.json")
manifest=$(put "$work/manifest.json")

printf '{"imageLayoutVersion":"1.0.0"}' >"$image/oci-layout"
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"annotations":{"org.opencontainers.image.ref.name":"latest"}}]}' \
    "$manifest" "$manifest_size" >"$image/index.json"

echo "file    sha256:$(digest "$module")"
echo "image   sha256:$manifest"
