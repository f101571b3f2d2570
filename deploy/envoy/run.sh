#!/usr/bin/env bash
# The entrypoint of the image: runs Envoy such that `docker stop` lets the deliveries in flight end.
#
#   run.sh envoy -c /etc/envoy/envoy.yaml
#   run.sh -c /etc/envoy/envoy.yaml
#
# On SIGTERM and SIGINT it drains (drain.sh, beside this file) and then stops Envoy. Give it the time:
# stop_grace_period in Compose, `docker run --stop-timeout 40`. A second signal stops Envoy at once.
set -u

case ${1:--} in -*) set -- envoy "$@" ;; esac
here=$(dirname "$(readlink -f "$0")")

"$@" &
envoy=$!
draining=
stop() {
    if [ -n "$draining" ]; then
        kill -TERM "$envoy"
        return
    fi
    draining=yes
    # In the background: bash handles the next signal only when no command runs in the foreground.
    { "$here/drain.sh"; kill -TERM "$envoy" 2>/dev/null; } &
}
trap stop TERM INT

# `wait` returns at each signal, too.
while
    wait "$envoy"
    status=$?
    [ "$status" -gt 128 ] && kill -0 "$envoy" 2>/dev/null
do :; done
if [ -z "$draining" ] && [ "$status" -ne 0 ]; then
    echo "callback-guard: Envoy ended with status $status; the lines above say why." \
        "If a variable is not set: docker run --env NAME, or in Compose a line NAME=value in the file" \
        ".env beside compose.yaml." >&2
fi
exit "$status"
