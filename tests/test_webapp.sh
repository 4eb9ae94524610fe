#!/usr/bin/env bash
# The example web application, with curl and a hostile client: its interface, its limits, the three kinds of handlers.
#
# usage: test_webapp.sh PATH_TO_WEBAPP
#
# Each part starts a server of its own on a free loopback port, and stops it by its pid.
set -u
shopt -s inherit_errexit

program=${1:?usage: test_webapp.sh PATH_TO_WEBAPP}
here=$(mktemp -d)
failures=0
pid=
port=

cleanup() {
    [ -n "$pid" ] && kill -KILL "$pid" 2>/dev/null
    rm -rf "$here"
}
trap cleanup EXIT

for tool in curl python3; do
    if ! command -v $tool >/dev/null; then
        echo "SKIPPED: $tool is not there"
        exit 77
    fi
done

say() { printf '%s\n' "$*"; }

fail() {
    say "FAILED: $*"
    failures=$((failures + 1))
}

# expect WHAT WANTED GOT
expect() {
    [ "$2" = "$3" ] || fail "$1: wanted \"$2\", got \"$3\""
}

# start [VARIABLE=VALUE…] -- [OPTION…]
start() {
    local environment=()
    while [ "$1" != -- ]; do
        environment+=("$1")
        shift
    done
    shift
    : >"$here/out"
    env "${environment[@]}" timeout --foreground 60 "$program" --port 0 "$@" >"$here/out" 2>"$here/err" &
    pid=$!
    for _ in $(seq 200); do
        port=$(sed -n 's/^listening on .*:\([0-9]*\)$/\1/p' "$here/out")
        [ -n "$port" ] && return
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.05
    done
    fail "the server did not start: $(cat "$here/err")"
    exit 1
}

# stop: it ends by itself, with status 0 and nothing unexpected said
stop() {
    kill -TERM "$pid"
    wait "$pid" || fail "exit status $?; stderr: $(tail -5 "$here/err")"
    pid=
}

expect_silence() {
    [ -s "$here/err" ] && fail "unexpected on stderr: $(head -5 "$here/err")"
}

ask() { curl -s --max-time 20 "${@:2}" "http://127.0.0.1:$port$1"; }

status() { ask "$1" -o /dev/null -w '%{http_code}' "${@:2}"; }

header() { ask "$1" -D - -o /dev/null "${@:3}" | tr -d '\r' | sed -n "s/^$2: //ip"; }

milliseconds() { echo $(($(date +%s%N) / 1000000)); }

root=$here/root
mkdir -p "$root/sub" "$here/root-secret"
printf '<p>index\n' >"$root/index.html"
printf 'small\n' >"$root/small.txt"
printf 'with blank\n' >"$root/sub/with blank.txt"
: >"$root/empty"
head -c 3000000 /dev/urandom >"$root/large.bin"
printf 'secret\n' >"$here/secret"
ln -s "$here/secret" "$root/link-out"
ln -s small.txt "$root/link-in"
mkfifo "$root/fifo"

say "== notes: JSON, and a database in the blocking pool"
start -- --root "$root" --body-max 4096 --log
expect "none at first" '[]' "$(ask /notes)"
expect "added" '{"id":1,"text":"one"}' "$(ask /notes -d '{"text": "one"}')"
expect "created" 201 "$(status /notes -d '{"text": "zw\u00f6lf \"2\""}')"
expect "all of them" '[{"id":2,"text":"zwölf \"2\""},{"id":1,"text":"one"}]' "$(ask /notes)"
expect "one of them" '{"id":1,"text":"one"}' "$(ask /notes/1)"
expect "type" application/json "$(header /notes/1 Content-Type)"
expect "removed" '{}' "$(ask /notes/1 -X DELETE)"
expect "once only" 404 "$(status /notes/1 -X DELETE)"
expect "gone" 404 "$(status /notes/1)"
expect "no such note" 404 "$(status /notes/x)"
for body in '' x '{' '[]' '{"text": 1}' '{"other": "x"}' "{\"text\": \"$(printf 'x%.0s' $(seq 400))\"}"; do
    expect "body $body" 400 "$(status /notes -d "$body")"
done
expect "a body in chunks" 201 "$(status /notes -H 'Transfer-Encoding: chunked' -d '{"text": "in chunks"}')"
expect "100-continue" 201 "$(status /notes -H 'Expect: 100-continue' -d '{"text": "continued"}')"
expect "a method that is not served" 405 "$(status /notes -X PATCH)"
expect "one that is unknown there" 405 "$(status /normal -X POST -d '')"
expect "body too large" 413 "$(status /notes --data-binary "@$root/large.bin")"
expect "body too large, in chunks" 413 \
    "$(status /notes -H 'Transfer-Encoding: chunked' --data-binary "@$root/large.bin")"
expect "header too large" 431 "$(status /notes -H "X-Large: $(printf 'x%.0s' $(seq 9000))")"
expect "too many headers" 431 "$(status /notes $(printf ' -H X%d:y' $(seq 70)))"
expect "target too long" 414 "$(status "/$(printf 'x%.0s' $(seq 9000))")"
expect "many at once lose none" 20 "$(
    pids=()
    for i in $(seq 20); do
        ask /notes -d "{\"text\": \"many\"}" >/dev/null &
        pids+=($!)
    done
    wait "${pids[@]}"
    ask /notes | grep -o many | wc -l
)"
expect "the log" "200 GET /notes" "$(sed -n 2p "$here/out")"

say "== files"
expect "index" "<p>index" "$(ask /)"
expect "small" "small" "$(ask /small.txt)"
expect "type" "text/plain" "$(header /small.txt Content-Type)"
expect "a name with a blank" "with blank" "$(ask /sub/with%20blank.txt)"
expect "empty" "0" "$(header /empty Content-Length)"
expect "a link inside the root" "small" "$(ask /link-in)"
ask /large.bin | cmp -s - "$root/large.bin" || fail "large.bin came back changed"
expect "HEAD" "3000000" "$(header /large.bin Content-Length -I)"
for range in 0-0 0-9 100-199999 2999999-2999999 2999000- 2999000-9999999; do
    first=${range%-*} last=${range#*-}
    ask /large.bin -r "$range" >"$here/part"
    tail -c "+$((first + 1))" "$root/large.bin" | head -c "$((${last:-2999999} - first + 1))" | cmp -s - "$here/part" ||
        fail "range $range"
    expect "range $range" 206 "$(status /large.bin -r "$range")"
done
ask /large.bin -r -77 | cmp -s - <(tail -c 77 "$root/large.bin") || fail "the last 77 bytes"
expect "which range it is" "bytes 5-9/3000000" "$(header /large.bin Content-Range -r 5-9)"
for range in 3000000- 3000000-3000001 -0; do
    expect "range $range" 416 "$(status /large.bin -H "Range: bytes=$range")"
done
expect "how much there is" "bytes */3000000" "$(header /large.bin Content-Range -r 3000000-)"
for range in 'bytes=9-5' 'bytes=x-5' 'bytes=5' 'bytes=1-2,4-5' 'lines=1-2' 'bytes=-' 'bytes=99999999999999999999-'; do
    expect "Range: $range is ignored" 200 "$(status /small.txt -H "Range: $range")"
done
modified=$(header /small.txt Last-Modified)
expect "not modified" 304 "$(status /small.txt -H "If-Modified-Since: $modified")"
expect "not modified, no body" "" "$(ask /small.txt -H "If-Modified-Since: $modified")"
expect "modified" 200 "$(status /small.txt -H 'If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT')"
expect "a date that is none" 200 "$(status /small.txt -H 'If-Modified-Since: yesterday')"
expect "the same still" 206 "$(status /small.txt -r 0-1 -H "If-Range: $modified")"
expect "another by now" 200 "$(status /small.txt -r 0-1 -H 'If-Range: Sun, 06 Nov 1994 08:49:37 GMT')"
expect "missing" 404 "$(status /missing)"
expect "through a file" 404 "$(status /small.txt/x)"
for name in ../secret ..%2fsecret sub/../../secret %2e%2e/secret "/$here/secret" //etc/passwd link-out .. . sub fifo \
    ../root-secret; do
    expect "/$name" 403 "$(status "/$name" --path-as-is)"
done
expect "a zero byte in the name" 400 "$(status /small.txt%00.png)"
expect "a broken escape" 400 "$(status /small%zz)"
expect_silence
stop
start --
expect "no root, no files" 404 "$(status /small.txt)"
stop

say "== events"
start WEFT_WORKERS=2 -- --idle-time 3 --receive-time 0.4 --answer-time 0.5
python3 - "$port" <<'PYTHON' || fail "events, and clients that do not behave"
import json, socket, sys, threading, time, http.client

port = int(sys.argv[1])


def connect():
    return socket.create_connection(("127.0.0.1", port), 10)


def read_all(s):
    data = b""
    try:
        while part := s.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data


def listen():
    s = connect()
    s.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
    f = s.makefile("rb")
    while (line := f.readline()) != b"\r\n":
        assert line, "the head"
    return f


def post(client, text):
    client.request("POST", "/notes", json.dumps({"text": text}))
    response = client.getresponse()
    response.read()
    assert response.status == 201, response.status


# Everybody hears everything, though one does not read at all.
listeners = [listen() for _ in range(3)]
deaf = connect()
deaf.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
time.sleep(0.1)
client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
for i in range(300):
    post(client, "%d %s" % (i, "x" * 250))
    for f in listeners:
        line = f.readline()
        assert json.loads(line[6:])["text"].startswith("%d x" % i), line
        assert f.readline() == b"\n"


def status(s):
    data = read_all(s)
    return int(data.split()[1]) if data else 0


# A handler that takes longer than it may; headers that trickle in or stop; a body that stops; silence.
s = connect()
s.sendall(b"GET /async?ms=5000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
assert status(s) == 503
begin = time.monotonic()
s = connect()
s.sendall(b"GET /notes HTTP/1.1\r\nHost: x\r\n")
try:
    while time.monotonic() - begin < 3:
        s.sendall(b"X: y\r\n")
        s.settimeout(0.05)
        try:
            assert s.recv(1000).startswith(b"HTTP/1.1 408"), "a header that trickles in"
            break
        except socket.timeout:
            pass
except ConnectionError:
    pass
assert 0.3 < time.monotonic() - begin < 2.5
for stalled in (b"GET /notes HTTP/1.1\r\nHo", b"POST /notes HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc"):
    s = connect()
    s.sendall(stalled)
    assert status(s) == 408, stalled
for junk in (b"\x00\r\n", b"hello\r\n\r\n", b"GET /notes HTTP/1.1\r\n\r\n", b"GET /notes HTTP/x\r\n\r\n",
             b"GET /notes HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
             b"POST /notes HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
             b"POST /notes HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"):
    s = connect()
    s.sendall(junk)
    assert status(s) == 400, junk

# Pipelined, and split at every byte.
pipeline = (b"GET /notes/1 HTTP/1.1\r\nHost: x\r\n\r\n"
            b"POST /notes HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n{\"text\"\r\n4\r\n:\"a\"\r\n1\r\n}\r\n0\r\n\r\n"
            b"HEAD /notes/1 HTTP/1.1\r\nHost: x\r\n\r\n"
            b"GET /nope HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
for at in range(0, len(pipeline), 3):
    with connect() as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.sendall(pipeline[:at])
        time.sleep(0.001)
        s.sendall(pipeline[at:])
        data = read_all(s)
        codes = [int(x[:3]) for x in data.split(b"HTTP/1.1 ")[1:]]
        assert codes == [200, 201, 200, 404], (at, data)

# Who was deaf is told what was missed, or hears what was kept for it.
heard = missed = 0
f = deaf.makefile("rb")
deaf.settimeout(3)
try:
    while heard + missed < 300 and (line := f.readline()):
        if line.startswith(b"event: missed"):
            missed += int(f.readline()[6:])
        elif line.startswith(b"data: "):
            heard += 1
except socket.timeout:
    pass
assert heard + missed >= 300, (heard, missed)

# Silence ends with the idle time, without a word.
begin = time.monotonic()
s = connect()
assert read_all(s) == b"" and 1 < time.monotonic() - begin < 6
PYTHON
expect_silence
stop

say "== a graceful stop"
start -- --answer-time 10
python3 - "$port" "$pid" <<'PYTHON' || fail "graceful stop"
import os, signal, socket, sys, time
port = int(sys.argv[1])
pid = int(open("/proc/%s/task/%s/children" % (sys.argv[2], sys.argv[2])).read().split()[0])  # of timeout(1)
def connect(request):
    s = socket.create_connection(("127.0.0.1", port), 10)
    s.sendall(request)
    return s
def read_all(s):
    data = b""
    while part := s.recv(65536):
        data += part
    return data
get = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"
fresh, idle, events = connect(b""), connect(get % b"notes"), connect(get % b"events")
assert idle.recv(1000).endswith(b"[]") and events.recv(1000).startswith(b"HTTP/1.1 200")
busy = [connect(get % (path + b"?ms=600")) for path in (b"async", b"normal", b"dump")]
time.sleep(0.3)
os.kill(pid, signal.SIGTERM)
begin = time.monotonic()
assert read_all(idle) == b"" and read_all(fresh) == b"" and read_all(events) == b""
assert time.monotonic() - begin < 0.25, "idle connections end at once"
for s in busy:
    data = read_all(s)
    assert data.startswith(b"HTTP/1.1 200") and b"Connection: close" in data and b"600 ms" in data, data
try:
    connect(b"")
    assert False, "still accepting"
except ConnectionRefusedError:
    pass
PYTHON
wait "$pid"
expect "exit status" 0 "$?"
pid=
expect_silence
start -- --grace 0.2
ask '/async?ms=20000' >/dev/null &
client=$!
sleep 0.2
before=$(milliseconds)
kill -TERM "$pid"
wait "$pid"
expect "exit status after the grace" 0 "$?"
pid=
wait $client
[ $(($(milliseconds) - before)) -lt 3000 ] || fail "the grace was not kept"
expect "says so" 1 "$(grep -c 'cut off' "$here/err")"

# at_once COUNT TARGET: so many at the same time; the milliseconds that took
at_once() {
    local before pids=()
    before=$(milliseconds)
    for _ in $(seq "$1"); do
        ask "$2" >/dev/null &
        pids+=($!)
    done
    wait "${pids[@]}"
    echo $(($(milliseconds) - before))
}

# All at once over connections of one process: a hundred curls take longer to start than to be answered.
hundred_at_once() {
    python3 - "$port" "$1" <<'PYTHON'
import socket, sys, time
crowd = [socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10) for _ in range(100)]
begin = time.monotonic()
for s in crowd:
    s.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % sys.argv[2].encode())
for s in crowd:
    assert b" 200 " in s.makefile("rb").read()
print(int((time.monotonic() - begin) * 1000))
PYTHON
}

between() { [ "$2" -ge "$1" ] && [ "$2" -lt "$3" ]; }

say "== three kinds of handlers: waits overlap on one worker"
start WEFT_WORKERS=1 --
took=$(at_once 2 '/normal?ms=800')
between 800 "$took" 1550 || fail "two /normal at once took $took ms"
took=$(hundred_at_once '/async?ms=500')
between 500 "$took" 2500 || fail "a hundred /async at once took $took ms"
took=$(at_once 2 '/dump?ms=400')
between 800 "$took" 1900 || say "two /dump on one worker took $took ms" # the second may find a spare thread
stop

# meanwhile: how long another request takes while one is in /dump, in milliseconds
meanwhile() {
    local before dump took
    ask "/dump?ms=$1" >/dev/null &
    dump=$!
    sleep 0.2
    before=$(milliseconds)
    expect "the other request is answered" 200 "$(status /notes)"
    took=$(($(milliseconds) - before))
    kill -0 $dump 2>/dev/null && say "another request took $took ms, /dump goes on" >&2
    wait $dump
    echo $took
}

say "== a handler that blocks its worker: one worker, nobody takes over"
start WEFT_WORKERS=1 WEFT_TAKEOVER_US=off WEFT_DEBUG=1 --
took=$(meanwhile 1000)
between 500 "$took" 2500 || fail "the server was not stalled: $took ms"
grep -q "GET /dump" "$here/err" || fail "the log does not name the task: $(cat "$here/err")"
stop
for setting in "1 with takeover" "2 without"; do
    say "== the same, workers: $setting"
    takeover=
    [ "${setting#* }" = without ] && takeover=WEFT_TAKEOVER_US=off
    # shellcheck disable=SC2086  # none or one
    start WEFT_WORKERS="${setting%% *}" WEFT_DEBUG=1 $takeover --
    took=$(meanwhile 1000)
    between 0 "$took" 600 || fail "the other request took $took ms"
    grep -q "GET /dump" "$here/err" || fail "the log does not name the task: $(cat "$here/err")"
    stop
done

[ $failures = 0 ] && say "all passed"
exit $((failures > 0))
