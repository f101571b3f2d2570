#!/bin/sh
# Makes sure that the engine has the images that the repository's files name: those that it has not
# and cannot pull it gets as stand-ins of the same names, made of Debian's packages, this machine's
# Rust and the Envoy of PyPI. They hold what these files use of the real ones.
#
#   images.sh ENVOY
#
# ENVOY is the executable for the stand-in. Needs debootstrap, and DOCKER_HOST if the engine is
# elsewhere than usual.
set -eu
envoy=$1
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../../..
base=debian:bookworm-slim
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

has() {
    docker image inspect "$1" >/dev/null 2>&1 || {
        echo "$1: looked for at its registry"
        timeout 600 docker pull --quiet "$1" >/dev/null 2>&1
    }
}

# IMAGE: a stand-in, made of the folder $work/context and the Dockerfile on standard input.
build() {
    echo "$1: made here"
    chmod -R u=rwX,go=rX "$work/context"
    docker build --quiet --network host --tag "$1" --file - "$work/context" >/dev/null
    rm -rf "$work/context"
}

# What the files name, and nothing else.
image() { cat "$root"/Dockerfile "$root"/compose.yaml "$root"/deploy/*/compose.yaml | sed -nE "s,.*(FROM|image:) ($1:[^ ]*).*,\\2,p" | sort -u; }

if ! has "$base"; then
    echo "$base: made here"
    debootstrap --variant=minbase bookworm "$work/root" >"$work/log" 2>&1 || { tail "$work/log" >&2; exit 1; }
    rm -rf "$work/root/var/cache/apt/archives" "$work/root/var/lib/apt/lists"
    mkdir -p "$work/root/var/cache/apt/archives/partial" "$work/root/var/lib/apt/lists/partial"
    tar -C "$work/root" -c . | docker import - "$base" >/dev/null
    rm -rf "$work/root"
fi
apt='apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends'

rust=$(image rust)
if ! has "$rust"; then
    # The toolchain that builds here, behind a `rustup` that has nothing to add, and what this
    # machine trusts.
    mkdir -p "$work/context/toolchain"
    toolchain=$(cd "$root" && rustc --print sysroot)
    cp -R --dereference "$toolchain/bin" "$toolchain/lib" "$work/context/toolchain/"
    for kept in "$work"/context/toolchain/lib/rustlib/*; do
        case $kept in */wasm32-wasip1 | */components | */*-unknown-linux-gnu) ;; *) rm -rf "$kept" ;; esac
    done
    cp "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$work/context/ca.crt"
    touch "$work/context/config.toml"
    cp "${CARGO_HOME:-$HOME/.cargo}/config.toml" "$work/context/config.toml" 2>/dev/null || true
    build "$rust" <<EOF
FROM $base
RUN $apt gcc libc6-dev ca-certificates
COPY toolchain /usr/local/cargo
COPY config.toml /usr/local/cargo/config.toml
COPY ca.crt /etc/ssl/certs/ca-certificates.crt
ENV CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
RUN ln -s /bin/true /usr/local/cargo/bin/rustup
EOF
fi

proxy=$(image envoyproxy/envoy)
if ! has "$proxy"; then
    mkdir -p "$work/context"
    cp "$envoy" "$work/context/envoy"
    # As the real one: an option first means envoy, and root becomes `envoy`.
    cat >"$work/context/docker-entrypoint.sh" <<'EOF'
#!/bin/sh
set -e
case ${1:--} in -*) set -- envoy "$@" ;; esac
if [ "$(id -u)" = 0 ]; then
    chown envoy:envoy /dev/stdout /dev/stderr
    exec setpriv --reuid 101 --regid 101 --clear-groups "$@"
fi
exec "$@"
EOF
    chmod +x "$work"/context/*
    build "$proxy" <<EOF
FROM $base
RUN groupadd --gid 101 envoy && useradd --uid 101 --gid 101 --no-create-home envoy && mkdir -p /etc/envoy
COPY envoy /usr/local/bin/envoy
COPY docker-entrypoint.sh /docker-entrypoint.sh
ENTRYPOINT ["/docker-entrypoint.sh"]
CMD ["envoy", "-c", "/etc/envoy/envoy.yaml"]
EOF
fi

echo=$(image mendhak/http-https-echo)
if ! has "$echo"; then
    mkdir -p "$work/context"
    cp "$here/echo.mjs" "$work/context/"
    build "$echo" <<EOF
FROM $base
RUN $apt nodejs
COPY echo.mjs /app/echo.mjs
USER 1000
CMD ["node", "/app/echo.mjs"]
EOF
fi

redis=$(image redis)
if ! has "$redis"; then
    mkdir -p "$work/context"
    # As the real one: root becomes `redis`.
    cat >"$work/context/docker-entrypoint.sh" <<'EOF'
#!/bin/sh
set -e
if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
    exec setpriv --reuid redis --regid redis --clear-groups "$0" "$@"
fi
exec "$@"
EOF
    chmod +x "$work"/context/*
    build "$redis" <<EOF
FROM $base
RUN $apt redis-server && mkdir /data && chown redis:redis /data
COPY docker-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
VOLUME /data
WORKDIR /data
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["redis-server"]
EOF
fi

webdis=$(image nicolas/webdis)
if ! has "$webdis"; then
    mkdir -p "$work/context"
    build "$webdis" <<EOF
FROM $base
RUN $apt webdis redis-server netcat-openbsd && ln -s /usr/bin/webdis /usr/local/bin/webdis
CMD redis-server --daemonize yes && webdis /etc/webdis.prod.json
EOF
fi
