#!/bin/sh
# Runs a Docker engine of its own for the tests, until its standard input ends: so it ends with the
# tests, however they end, and takes its containers, bridge and firewall rules with it.
#
#   engine.sh DIRECTORY
#
# The images stay in DIRECTORY for the next time. The socket is DIRECTORY/docker.sock; "ready" is
# printed when it answers. Needs root, and Debian's docker.io and iptables.
set -eu
directory=$1
socket=unix://$directory/docker.sock
export DOCKER_HOST="$socket"
mkdir -p "$directory"

# Another run may still be ending; two engines would share one bridge.
exec 9>/run/lock/callback-guard-docker
flock 9

forwarding=$(cat /proc/sys/net/ipv4/ip_forward)
policy=$(iptables --list-rules FORWARD | head -n 1)
engine=
leave() {
    trap - EXIT
    if [ -n "$engine" ]; then
        docker ps --all --quiet | xargs --no-run-if-empty docker rm --force --volumes >/dev/null 2>&1 || true
        docker network prune --force >/dev/null 2>&1 || true
        # What builds leave would grow with each run.
        docker image prune --force >/dev/null 2>&1 || true
        kill "$engine" 2>/dev/null || true
        wait "$engine" || true
    fi
    for table in filter nat; do
        iptables-save --table "$table" | grep --invert-match --ignore-case docker |
            iptables-restore --table "$table" || true
    done
    # shellcheck disable=SC2086 # Words: -P FORWARD ACCEPT
    iptables $policy
    ip link delete docker0 2>/dev/null || true
    echo "$forwarding" >/proc/sys/net/ipv4/ip_forward
}
trap leave EXIT
trap 'exit 1' INT TERM HUP

dockerd --host "$socket" --data-root "$directory/data" --exec-root "$directory/run" \
    --pidfile "$directory/docker.pid" >"$directory/dockerd.log" 2>&1 9>&- </dev/null &
engine=$!
tries=0
until docker info >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ "$tries" -gt 300 ] || ! kill -0 "$engine" 2>/dev/null; then
        tail -n 20 "$directory/dockerd.log" >&2
        exit 1
    fi
    sleep 0.2
done
echo ready
cat >/dev/null
