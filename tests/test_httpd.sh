#!/usr/bin/env bash
# The example server against real clients: curl, wrk if it is there, and a hostile one.
#
# usage: test_httpd.sh PATH_TO_HTTPD
#
# Each part starts a server of its own, on a free loopback port, with limits small enough to be reached. Servers
# end by themselves after a minute, whatever happens to this script.
set -u

httpd=${1:?usage: test_httpd.sh PATH_TO_HTTPD}
here=$(mktemp -d)
failures=0
pid=
port=

cleanup() {
    [ -n "$pid" ] && kill -KILL "$pid" 2>/dev/null
    rm -rf "$here"
}
trap cleanup EXIT

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
    env "${environment[@]}" "$httpd" --port 0 --seconds 60 "$@" >"$here/out" 2>"$here/err" &
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

# stop WANTED_STATUS
stop() {
    kill -TERM "$pid"
    wait "$pid"
    local got=$?
    [ "$got" = "$1" ] || fail "exit status: wanted $1, got $got; stderr: $(tail -5 "$here/err")"
    pid=
}

url() { printf 'http://127.0.0.1:%s%s' "$port" "$1"; }

status() { curl -s -o /dev/null --max-time 20 -w '%{http_code}' "${@:2}" "$(url "$1")"; }

body() { curl -s --max-time 20 "${@:2}" "$(url "$1")"; }

header() { curl -s -D - -o /dev/null --max-time 20 "${@:3}" "$(url "$1")" | tr -d '\r' | sed -n "s/^$2: //ip"; }

stat_of() { body /stats | sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p" | head -1; }

# What a sanitizer has to say goes to stderr too; nothing else is expected there.
expect_silence() {
    [ -s "$here/err" ] && fail "unexpected on stderr: $(head -5 "$here/err")"
}

root=$here/root # of what is uploaded
mkdir "$root"
printf 'small\n' >"$root/small.txt"
head -c 300000 /dev/urandom >"$root/large.bin"

say "== endpoints, with curl"
start -- --max-header 2048 --max-url 512 --max-body 4096
expect "plaintext" "Hello, World!" "$(body /plaintext)"
expect "plaintext with a query" "Hello, World!" "$(body '/plaintext?a=b')"
expect "normal" "blocked a pool thread for 20 ms" "$(body '/normal?ms=20')"
expect "async" "parked for 20 ms" "$(body '/async?ms=20')"
expect "dump" "blocked a worker for 20 ms" "$(body '/dump?ms=20')"
expect "cpu" "computed for 20 ms:" "$(body '/cpu?ms=20' | cut -d' ' -f1-4)"
expect "stats are JSON" "True" "$(body /stats | python3 -c 'import json,sys; print("open" in json.load(sys.stdin)["httpd"])')"
expect "unknown" 404 "$(status /nope)"
expect "root" 404 "$(status /)"
for target in '/async?ms=' '/async?ms=x' '/async?ms=-1' '/async?ms=60001' '/async?ms=1%zz'; do
    expect "$target" 400 "$(status "$target")"
done
for method in POST PUT DELETE OPTIONS PATCH; do
    expect "$method /plaintext" 405 "$(status /plaintext -X $method)"
done
expect "allowed" "GET, HEAD" "$(header /plaintext Allow -X DELETE)"
expect "allowed" "GET, HEAD, POST" "$(header /async Allow -X DELETE)"
expect "HEAD" "13" "$(header /plaintext Content-Length -I)"
expect "HEAD status" 200 "$(status /plaintext -I)"
expect "HEAD has no body" "" "$(curl -s --max-time 5 -X HEAD -I "$(url /plaintext)" | tr -d '\r' | sed '1,/^$/d')"
expect "POST with a body" 200 "$(status '/async?ms=1' --data-binary "@$root/small.txt")"
expect "POST chunked" 200 "$(status '/async?ms=1' -H 'Transfer-Encoding: chunked' --data-binary "@$root/small.txt")"
expect "100-continue" 200 "$(status '/async?ms=1' -H 'Expect: 100-continue' --data-binary "@$root/small.txt")"
expect "body too large" 413 "$(status '/async?ms=1' --data-binary "@$root/large.bin")"
expect "chunked body too large" 413 \
    "$(status '/async?ms=1' -H 'Transfer-Encoding: chunked' --data-binary "@$root/large.bin")"
expect "header too large" 431 "$(status /plaintext -H "X-Large: $(printf 'x%.0s' $(seq 4000))")"
expect "target too long" 414 "$(status "/plaintext?$(printf 'x%.0s' $(seq 600))")"
expect "HTTP/1.0 closes" "close" "$(header /plaintext Connection --http1.0)"
expect "HTTP/1.0 keeps when asked" "keep-alive" "$(header /plaintext Connection --http1.0 -H 'Connection: keep-alive')"
expect "close is honoured" "close" "$(header /plaintext Connection -H 'Connection: close')"
expect "an offer of HTTP/2 is ignored" "200" "$(status /plaintext --http2)"
expect "one connection for two requests" "1" \
    "$(curl -sv --max-time 5 "$(url /plaintext)" "$(url '/async?ms=1')" 2>&1 | grep -c 'Connected to')"
date=$(header /plaintext Date)
age=$(($(date +%s) - $(date -d "$date" +%s)))
[ "$age" -ge -1 ] && [ "$age" -le 2 ] || fail "Date is off by $age s: $date"

expect_silence
stop 0

say "== a hostile client"
cat >"$here/client.py" <<'PYTHON'
import socket, sys, threading, time

port = int(sys.argv[1])
failures = []


def connect(timeout=10):
    s = socket.create_connection(("127.0.0.1", port), timeout)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def check(what, wanted, got):
    if wanted != got:
        failures.append(what)
        print("FAILED: %s: wanted %r, got %r" % (what, wanted, got))


def read_all(s):
    data = b""
    try:
        while True:
            part = s.recv(65536)
            if not part:
                return data
            data += part
    except ConnectionResetError:
        return data + b"<reset>"


class Reader:
    def __init__(self, s):
        self.s, self.data = s, b""

    def until(self, wanted):
        while not wanted():
            part = self.s.recv(65536)
            if not part:
                raise EOFError(self.data)
            self.data += part

    def response(self, head=False):
        self.until(lambda: b"\r\n\r\n" in self.data)
        header, self.data = self.data.split(b"\r\n\r\n", 1)
        lines = header.split(b"\r\n")
        fields = {l.split(b": ", 1)[0].lower(): l.split(b": ", 1)[1] for l in lines[1:]}
        length = 0 if head else int(fields.get(b"content-length", 0))
        self.until(lambda: len(self.data) >= length)
        body, self.data = self.data[:length], self.data[length:]
        return int(lines[0].split()[1]), body


def status(data):
    return int(data.split()[1]) if data.startswith(b"HTTP/1.1 ") else data[:60]


def exchange(request, timeout=10):
    with connect(timeout) as s:
        s.sendall(request)
        return status(read_all(s))


GET = b"GET /plaintext HTTP/1.1\r\nHost: x\r\n\r\n"
PIPELINE = (GET + b"POST /async?ms=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
            + b"HEAD /plaintext HTTP/1.1\r\nhOsT: x\r\n\r\n"
            + b"POST /cpu HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            + b"GET /nope HTTP/1.1\r\nX-Host: y\r\nHost: x\r\n\r\n" + GET)


def read_pipeline(s, what):
    r = Reader(s)
    got = [r.response(head=i == 2) for i in range(6)]
    check(what + ", statuses", [200, 200, 200, 200, 404, 200], [c for c, _ in got])
    check(what + ", first body", b"Hello, World!", got[0][1])
    check(what + ", second body", b"parked for 1 ms\n", got[1][1])
    check(what + ", last body", b"Hello, World!", got[5][1])
    check(what + ", rest", b"", r.data)


def garbage():
    for junk in (b"\x00" * 100, b"\xff\xfe" * 50, b"hello\r\n\r\n", b"GET\r\n\r\n", b"GET /plaintext HTTP/x.y\r\n\r\n",
                 b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET /plaintext HTTP/1.1\r\nHo st: x\r\n\r\n",
                 b"GET /plaintext HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
                 b"GET /plaintext HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                 b"POST /async HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                 b"POST /async HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"):
        check("garbage %r" % junk[:40], 400, exchange(junk))
    check("no Host", 400, exchange(b"GET /plaintext HTTP/1.1\r\n\r\n"))
    check("two Hosts", 400, exchange(b"GET /plaintext HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"))
    check("HTTP/1.0 needs no Host", 200, exchange(b"GET /plaintext HTTP/1.0\r\n\r\n"))
    check("HTTP/2.0", 505, exchange(b"GET /plaintext HTTP/2.0\r\nHost: x\r\n\r\n"))
    check("absolute target", 200, exchange(b"GET http://x/plaintext HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    check("CONNECT", 404, exchange(b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))


def answers_before_an_error():
    with connect() as s:
        s.sendall(GET + GET + b"garbage\r\n\r\n" + GET)
        data = read_all(s)
        check("good requests before a bad one are answered", 2, data.count(b"Hello, World!"))
        check("the bad one too", 1, data.count(b"400 Bad Request"))
        check("nothing after it", True, data.endswith(b"Bad Request"))


def oversized():
    check("endless header", 431, exchange(b"GET /plaintext HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"y" * 100000))
    check("many headers", 431, exchange(b"GET /plaintext HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 20000))
    check("endless target", 414, exchange(b"GET /" + b"y" * 100000))
    check("large body announced", 413,
          exchange(b"POST /async HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"))
    check("large body sent in full", 413,
          exchange(b"POST /async HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n" + b"b" * 500000))


def expects_continue():
    with connect() as s:
        s.sendall(b"POST /async HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        r = Reader(s)
        check("100-continue before the body", (100, b""), r.response())
        s.sendall(b"abc")
        check("then the answer", 200, r.response()[0])


def pipelining():
    with connect() as s:
        s.sendall(PIPELINE * 30)
        reader = Reader(s)
        codes = [reader.response(head=i % 6 == 2)[0] for i in range(180)]
        check("180 in a row", [200, 200, 200, 200, 404, 200] * 30, codes)


def split_at_every_byte():
    for at in range(1, len(PIPELINE)):
        with connect() as s:
            s.sendall(PIPELINE[:at])
            time.sleep(0.001)
            s.sendall(PIPELINE[at:])
            read_pipeline(s, "split at %d" % at)
    with connect() as s:
        for byte in GET * 2:
            s.sendall(bytes([byte]))
            time.sleep(0.0005)
        r = Reader(s)
        check("a byte at a time", [(200, b"Hello, World!")] * 2, [r.response(), r.response()])


def half_close():
    with connect() as s:
        s.sendall(GET + b"GET /async?ms=50 HTTP/1.1\r\nHost: x\r\n\r\n")
        s.shutdown(socket.SHUT_WR)
        data = read_all(s)
        check("answers after the client's end", (True, True), (b"Hello, World!" in data, b"parked for 50" in data))


def stall_header():
    begin = time.monotonic()
    check("a stalled header", 408, exchange(b"GET /plaintext HTTP/1.1\r\nHo"))
    check("after the header time-out", True, 0.4 < time.monotonic() - begin < 5)


def stall_body():
    check("a stalled body", 408, exchange(b"POST /async HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc"))


def slow_loris():
    begin = time.monotonic()
    with connect() as s:
        data = b""
        try:
            s.sendall(b"GET /plaintext HTTP/1.1\r\nHost: x\r\n")
            while time.monotonic() - begin < 5:
                s.sendall(b"X: y\r\n")
                s.settimeout(0.05)
                try:
                    data += s.recv(1000)
                    break
                except socket.timeout:
                    pass
        except OSError:
            pass
        check("a header that trickles in", 408, status(data))
        check("trickling does not extend the time", True, time.monotonic() - begin < 4)


def silence():
    for sent, answers in ((b"", 0), (GET, 1)):
        begin = time.monotonic()
        with connect() as s:
            s.sendall(sent)
            data = read_all(s)
            check("answers before silence", answers, data.count(b"Hello, World!"))
            check("no 408 between requests", False, b"408" in data)
            check("closed after the keep-alive time-out", True, 0.5 < time.monotonic() - begin < 5)


def takes_nothing():
    with connect(20) as s:
        # Answers to more than the buffers on both sides can grow to.
        begin = time.monotonic()
        try:
            for _ in range(1000):
                s.sendall(GET * 2000)
            check("a client that takes nothing is dropped", True, False)
        except ConnectionError:
            check("within the write time-out", True, 0.9 < time.monotonic() - begin < 15)


def drops():
    for request in (b"", b"GET", GET, b"GET /async?ms=30 HTTP/1.1\r\nHost: x\r\n\r\n",
                    b"GET /normal?ms=30 HTTP/1.1\r\nHost: x\r\n\r\n",
                    GET * 200):
        for linger in (False, True):
            for _ in range(10):
                s = connect()
                if linger:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                s.sendall(request)
                s.close()


def many_waiting():
    begin = time.monotonic()
    clients = [connect() for _ in range(100)]
    for s in clients:
        s.sendall(b"GET /async?ms=400 HTTP/1.1\r\nHost: x\r\n\r\n")
    for s in clients:
        check("one of a hundred that wait", (200, b"parked for 400 ms\n"), Reader(s).response())
    check("a hundred wait at once", True, time.monotonic() - begin < 4)
    for s in clients:
        s.close()


quick = [garbage, answers_before_an_error, oversized, expects_continue, pipelining, split_at_every_byte, half_close,
         drops, many_waiting]
timed = [stall_header, stall_body, slow_loris, silence, takes_nothing]


def run(test):
    try:
        test()
    except Exception as error:
        check(test.__name__, "no exception", repr(error))


threads = [threading.Thread(target=run, args=(t,)) for t in timed + quick[:1]]
for t in threads:
    t.start()
for t in quick[1:]:
    run(t)
for t in threads:
    t.join()
check("still serving", 200, exchange(GET[:-2] + b"Connection: close\r\n\r\n"))
sys.exit(1 if failures else 0)
PYTHON
start -- --header-timeout 0.6 --keepalive-timeout 0.8 --write-timeout 1 --max-header 2048 \
    --max-url 512 --max-body 4096
python3 "$here/client.py" "$port" || fail "the hostile client"
[ "$(stat_of timed_out)" -ge 3 ] || fail "time-outs were not counted: $(stat_of timed_out)"
[ "$(stat_of bad_requests)" -ge 10 ] || fail "bad requests were not counted: $(stat_of bad_requests)"
for _ in $(seq 100); do
    [ "$(stat_of open)" = 1 ] && break
    sleep 0.05
done
expect "connections that are left" 1 "$(stat_of open)"
expect_silence
stop 0

say "== a connection that was quiet for long is served again"
start -- --keepalive-timeout 10
expect "both requests" "200 200" "$(python3 - "$port" <<'PYTHON'
import http.client, sys, time
c = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=10)
codes = []
for pause in (1.5, 0):
    c.request("GET", "/plaintext")
    r = c.getresponse()
    r.read()
    codes.append(str(r.status))
    time.sleep(pause)
print(*codes)
PYTHON
)"
stop 0

say "== a worker blocked by mistake does not stop the others"
for workers in 1 2; do
    start WEFT_WORKERS=$workers --
    curl -s -o /dev/null --max-time 20 "$(url '/dump?ms=1500')" &
    dump=$!
    sleep 0.2
    expect "plaintext meanwhile" "Hello, World!" "$(body /plaintext --max-time 1)"
    kill -0 $dump 2>/dev/null || fail "the dump had ended before"
    wait $dump
    stop 0
done

say "== a full pool"
start WEFT_BLOCKING_MAX=1 WEFT_BLOCKING_QUEUE=1 --
clients=()
for i in 1 2 3 4 5; do
    curl -s -D "$here/pool.$i" -o /dev/null --max-time 20 "$(url '/normal?ms=500')" &
    clients+=($!)
done
wait "${clients[@]}"
cat "$here"/pool.? | tr -d '\r' >"$here/pool"
expect "served" 2 "$(grep -c '^HTTP/1.1 200' "$here/pool")"
expect "refused" 3 "$(grep -c '^HTTP/1.1 503' "$here/pool")"
expect "told when to come back" 3 "$(grep -c '^Retry-After: 1' "$here/pool")"
expect "counted" 3 "$(stat_of refused_pool)"
expect "then served again" 200 "$(status '/normal?ms=1')"
stop 0

say "== too many connections"
start -- --max-connections 4
expect "four are served, the fifth is told, room is found again" "200 200 200 200 503 200" \
    "$(python3 - "$port" <<'PYTHON'
import http.client, sys, time
def client():
    return http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=10)
def get(c):
    c.request("GET", "/plaintext")
    r = c.getresponse()
    r.read()
    return str(r.status)
clients = [client() for _ in range(5)]
codes = [get(c) for c in clients]
for c in clients:
    c.close()
for _ in range(100):
    last = get(client())
    if last == "200":
        break
    time.sleep(0.02)
print(*codes, last)
PYTHON
)"
expect "counted" 1 "$([ "$(stat_of refused_connections)" -ge 1 ] && echo 1)"
stop 0

say "== out of descriptors"
start -- --max-connections 1000
prlimit --pid "$pid" --nofile=60:60
expect "served once descriptors are back" 200 "$(python3 - "$port" <<'PYTHON'
import http.client, socket, sys, time
port = int(sys.argv[1])
crowd = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(100)]
time.sleep(0.3)
for s in crowd:
    s.close()
c = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
c.request("GET", "/plaintext")
print(c.getresponse().status)
PYTHON
)"
expect "said once" 1 "$(grep -c 'accept: Too many open files' "$here/err")"
[ "$(stat_of accept_pauses)" -ge 1 ] || fail "pauses were not counted"
stop 0

say "== stopping"
start --
python3 - "$port" "$pid" <<'PYTHON' || fail "graceful stop"
import os, signal, socket, sys, time
port, pid = int(sys.argv[1]), int(sys.argv[2])
def connect():
    return socket.create_connection(("127.0.0.1", port), 10)
def read_all(s):
    data = b""
    while part := s.recv(65536):
        data += part
    return data
fresh = connect()
idle = connect()
idle.sendall(b"GET /plaintext HTTP/1.1\r\nHost: x\r\n\r\n")
assert idle.recv(1000).endswith(b"Hello, World!")
busy = [connect() for _ in range(3)]
for s, path in zip(busy, (b"async", b"normal", b"dump")):
    s.sendall(b"GET /" + path + b"?ms=600 HTTP/1.1\r\nHost: x\r\n\r\nGET /plaintext HTTP/1.1\r\nHost: x\r\n\r\n")
time.sleep(0.3)
os.kill(pid, signal.SIGTERM)
begin = time.monotonic()
assert read_all(idle) == b"" and read_all(fresh) == b"", "idle connections are closed"
assert time.monotonic() - begin < 2
for s in busy:
    data = read_all(s)
    assert data.count(b"HTTP/1.1 200") == 1 and b"600 ms" in data, data
    assert b"Connection: close" in data, data
try:
    connect()
    assert False, "still accepting"
except ConnectionRefusedError:
    pass
PYTHON
wait "$pid"
expect "exit status after a graceful stop" 0 "$?"
pid=
expect_silence

# in_flight TARGET SIGNAL… : request TARGET, send the signals, set `took` to the milliseconds until the server ended
in_flight() {
    curl -s -o /dev/null --max-time 20 "$(url "$1")" &
    sleep 0.2
    shift
    local begin
    begin=$(date +%s%N)
    for signal in "$@"; do
        kill -"$signal" "$pid"
        sleep 0.1
    done
    wait "$pid"
    took=$((($(date +%s%N) - begin) / 1000000))
    pid=
}
start -- --grace 0.3
in_flight '/async?ms=10000' TERM
[ "$took" -lt 3000 ] || fail "a parked request held up the stop for $took ms"
start -- --grace 0.3
in_flight '/dump?ms=10000' TERM
[ "$took" -lt 3000 ] || fail "a blocked worker held up the stop for $took ms"
start -- --grace 20
in_flight '/async?ms=10000' TERM INT
[ "$took" -lt 3000 ] || fail "the second signal was not heeded for $took ms"

say "== options"
"$httpd" --help >"$here/help" || fail "--help failed"
expect "help names the endpoints" 1 "$(grep -c /plaintext "$here/help")"
for bad in '--port 65536' '--port x' '--max-url 5000' '--grace -1' '--nonsense' 'extra'; do
    # shellcheck disable=SC2086
    "$httpd" $bad >/dev/null 2>&1
    expect "status for $bad" 2 "$?"
done

if command -v wrk >/dev/null; then
    say "== wrk"
    start --
    cat >"$here/pipeline.lua" <<'LUA'
init = function(args)
    local r = {}
    for i = 1, 16 do r[i] = wrk.format("GET", "/plaintext") end
    request_text = table.concat(r)
end
request = function() return request_text end
LUA
    for arguments in '-t1 -c64' "-t1 -c64 -s $here/pipeline.lua" '-t2 -c500'; do
        # shellcheck disable=SC2086
        wrk $arguments -d1 "$(url /plaintext)" >"$here/wrk"
        say "   wrk ${arguments%% -s*}: $(sed -n 's/^Requests\/sec: *//p' "$here/wrk") requests/s"
        grep -E 'Non-2xx|Socket errors' "$here/wrk" && fail "wrk $arguments saw errors"
    done
    stop 0
    expect_silence
fi

if [ "$failures" -gt 0 ]; then
    say "$failures failed"
    exit 1
fi
say "all passed"
