#!/bin/bash
# The main job, as a person would type it: a base image, a build, a served model, a prediction over HTTP.
# Every command is printed before it runs. On failure the container is removed and the last word is the reason.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:$PATH:/usr/sbin:/sbin

name=api-modelo-ml
image=meu-modelo-ml:v1.0
base=python:3.11-slim
features='{"features": [5.1, 3.5, 1.4, 0.2]}'
started=no

step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
run() {
    printf '$ %s\n' "$*"
    "$@"
}
fail() {
    echo "demo: $*" >&2
    exit 1
}
finish() {
    code=$?
    if [ $code != 0 ]; then
        if [ $started = yes ]; then
            echo "-- the container's last words:" >&2
            lading logs --tail 20 $name >&2 || true
            lading rm -f $name >/dev/null 2>&1 || true
        fi
        echo "demo: FAILED (exit code $code)" >&2
    fi
}
trap finish EXIT

# A request over HTTP: curl where the machine has it, Python otherwise.
request() { # METHOD PATH [BODY]
    if command -v curl >/dev/null; then
        curl -sS --fail-with-body --noproxy '*' --max-time 10 -X "$1" "localhost:5000$2" \
            -H 'Content-Type: application/json' ${3:+-d "$3"}
    else
        python - "$@" <<'PY'
import sys, urllib.request
method, path, body = (sys.argv[1:] + [""])[:3]
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
sent = urllib.request.Request("http://localhost:5000" + path, body.encode() or None, {"Content-Type": "application/json"}, method=method)
print(opener.open(sent, timeout=10).read().decode())
PY
    fi
}
wait_until_served() {
    for _ in $(seq 120); do
        if request GET /health >/dev/null 2>&1; then
            return 0
        fi
        [ "$(lading inspect -f '{{.State.Running}}' $name)" = true ] || fail "the container $name stopped"
        sleep 0.5
    done
    fail "the model does not answer on port 5000 after a minute"
}

[ "$(id -u)" = 0 ] || fail "needs root: sudo make demo"
command -v lading >/dev/null || fail "lading is not installed; run: make install"
if python -c 'import socket, sys; sys.exit(socket.socket().connect_ex(("127.0.0.1", 5000)) != 0)'; then
    holder=$(lading ps --filter publish=5000 --format '{{.Names}}' 2>/dev/null || true)
    fail "port 5000 of this machine is taken${holder:+ by the container $holder}; stop what uses it and try again"
fi
if lading inspect $name >/dev/null 2>&1; then
    fail "a container $name exists already; remove it: lading rm -f $name"
fi

if ! lading inspect --type image $base >/dev/null 2>&1; then
    step "A base image, from the distribution's signed packages (only where no registry answers)"
    bash examples/lib/packages.sh mmdebstrap=mmdebstrap
    run lading bootstrap $base
fi

step "Build: pip install inside, then the model is trained"
run lading build -t $image examples/iris-api

step "Run it"
started=yes
run lading run -d -p 5000:5000 --name $name $image
wait_until_served

step "Ask it"
echo "$ curl -X POST localhost:5000/predict -H 'Content-Type: application/json' -d '$features'"
request POST /predict "$features"

step "Look at it"
run lading ps
run lading logs $name
run lading exec $name python -V
run lading stats --no-stream

step "Stop and start it"
run lading stop $name
run lading start $name
wait_until_served
echo "$ curl -X POST localhost:5000/predict -H 'Content-Type: application/json' -d '$features'"
prediction=$(request POST /predict "$features")
echo "$prediction"
case $prediction in
*'"class_name":"setosa"'*) ;;
*) fail "the model should have said setosa" ;;
esac

step "Clean up"
run lading rm -f $name
started=no
run lading images
run lading rmi $image

step "Done. The container answered over HTTP: $prediction"
