#!/usr/bin/env bash
# Streams against those of Python's asyncio, in both directions, with one worker and with four.
#
# usage: test_stream_peers.sh PATH_TO_STREAM_PEER
#
# Without python3 there is nothing to talk to: skipped (status 77).
set -u

peer=${1:?usage: test_stream_peers.sh PATH_TO_STREAM_PEER}
script=$(dirname "${BASH_SOURCE[0]}")/stream_peer.py
here=$(mktemp -d)
pid=
trap '[ -n "$pid" ] && kill -KILL "$pid" 2>/dev/null; rm -rf "$here"' EXIT

fail() {
    printf 'FAILED: %s\n' "$*"
    exit 1
}

if ! python3 -c 'import asyncio, sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; then
    echo "SKIPPED: python3 (3.8 or later) is not there, so there is no asyncio to talk to"
    exit 77
fi

for workers in 1 4; do
    export WEFT_WORKERS=$workers
    mkfifo "$here/port.$workers"
    "$peer" server >"$here/port.$workers" &
    pid=$!
    read -r port <"$here/port.$workers" || fail "the server did not start"
    python3 "$script" client "$port" || fail "asyncio as the client, $workers workers"
    wait "$pid" || fail "the server, $workers workers: status $?"
    pid=
    echo "asyncio as the client, $workers workers: ok"

    python3 "$script" server "$peer" client || fail "asyncio as the server, $workers workers"
    echo "asyncio as the server, $workers workers: ok"
done
