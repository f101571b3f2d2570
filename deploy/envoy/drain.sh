#!/usr/bin/env bash
# Lets the deliveries of an Envoy end: no new connection is taken, and when the last request is
# answered, or the time is over, this returns. Then Envoy can be stopped. Without it Envoy leaves at
# once on SIGTERM, cuts off what is in flight, and the sender delivers it again.
#
#   drain.sh
#   drain.sh --is-ready    says by its status only whether Envoy serves: a health check
#
# The image's entrypoint runs it on SIGTERM, Kubernetes as the preStop hook. Needs bash (Envoy's image
# has it, and no curl) and Envoy's admin port on the loopback.
#
#   CALLBACK_GUARD_ADMIN_PORT     9901
#   CALLBACK_GUARD_DRAIN_DELAY    0 s     before connections are refused: time for load balancers to see
#                                         that health checks fail, and for Kubernetes to take the pod out
#   CALLBACK_GUARD_DRAIN_SECONDS  30 s    for the requests in flight. They take the guard's
#                                         wait_seconds and the route's timeout together at most (25 s)
set -u

port=${CALLBACK_GUARD_ADMIN_PORT:-9901}
delay=${CALLBACK_GUARD_DRAIN_DELAY:-0}
seconds=${CALLBACK_GUARD_DRAIN_SECONDS:-30}

# METHOD PATH: prints the body. Fails if Envoy does not answer 200.
admin() {
    local line answer=
    # Not `exec 3<>`: bash ends on a redirection of exec that fails.
    {
        printf '%s %s HTTP/1.1\r\nhost: admin\r\ncontent-length: 0\r\nconnection: close\r\n\r\n' "$1" "$2" >&3
        read -r answer <&3
        while read -r line <&3 && [ "$line" != $'\r' ]; do :; done
        cat <&3
    } 3<>"/dev/tcp/127.0.0.1/$port" || return 1
    case $answer in *' 200 '*) ;; *) return 1 ;; esac
} 2>/dev/null

# How many requests are being answered, the admin port's own left out.
active() {
    admin GET '/stats?filter=%5Ehttp%5C..*%5C.downstream_rq_active$' | {
        sum=
        while read -r name value; do
            case $name in
                http.admin.*) ;;
                http.*) sum=$((${sum:-0} + ${value%$'\r'})) ;;
            esac
        done
        [ -n "$sum" ] && echo "$sum"
    }
}

if [ "${1:-}" = --is-ready ]; then
    admin GET /ready >/dev/null
    exit
fi

say() { printf 'drain: %s\n' "$*" >&2; }

# Health checks fail from here on, and each answer closes its connection.
if ! admin POST /healthcheck/fail >/dev/null; then
    say "no answer from Envoy's admin port at 127.0.0.1:$port (CALLBACK_GUARD_ADMIN_PORT)"
    exit 1
fi
sleep "$delay"
admin POST /drain_listeners >/dev/null
deadline=$((SECONDS + seconds))
while left=$(active) && [ "$left" -gt 0 ]; do
    if [ "$SECONDS" -ge "$deadline" ]; then
        say "$left requests are still in flight after $seconds s (CALLBACK_GUARD_DRAIN_SECONDS)"
        exit 1
    fi
    sleep 0.1
done
say "no request is in flight"
