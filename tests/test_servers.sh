#!/usr/bin/env bash
# The example servers against programs that nobody here wrote: curl, wrk, socat, and nginx in front of and behind them.
#
# usage: test_servers.sh DIRECTORY_OF_THE_EXAMPLES PATH_TO_SOCKET_PEER
#
# Everything listens on the loopback, on free ports, and is stopped by its pid. What is not installed is left out with a
# word; if nothing is, or the examples were not built, the test is skipped (status 77).
set -u

examples=${1:?usage: test_servers.sh DIRECTORY_OF_THE_EXAMPLES PATH_TO_SOCKET_PEER}
socket_peer=${2:?the path to socket_peer}
here=$(mktemp -d)
failures=0
pids=()
parts=0
PATH=$PATH:/usr/sbin:/sbin

cleanup() {
    for pid in "${pids[@]}"; do
        kill -KILL "$pid" 2>/dev/null
    done
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

# needs PART TOOL…: is everything there for it?
needs() {
    local part=$1 tool
    shift
    for tool in "$@"; do
        if ! command -v "$tool" >/dev/null && [ ! -x "$examples/$tool" ]; then
            say "SKIPPED: $part: $tool is not there"
            return 1
        fi
    done
    say "== $part"
    parts=$((parts + 1))
}

# A port that was free a moment ago, for programs that cannot choose one themselves.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# launch COMMAND…: in the background, for a minute at most; its pid is in `launched`
launch() {
    timeout --foreground 60 "$@" >"$here/out" 2>"$here/err" &
    launched=$!
    pids+=("$launched")
}

# until_open PORT: somebody listens there; asks the kernel, since one that takes a single connection must not be tried
until_open() {
    for _ in $(seq 500); do
        grep -qs "$(printf ':%04X [0-9A-F]*:0000 0A ' "$1")" /proc/net/tcp /proc/net/tcp6 && return
        sleep 0.02
    done
    fail "nobody listens on port $1: $(cat "$here/err")"
    exit 1
}

stop() {
    kill -TERM "$1"
    wait "$1" 2>/dev/null
}

# start_httpd OPTION…: sets httpd_port
start_httpd() {
    launch "$examples/httpd" --port 0 --seconds 60 "$@"
    for _ in $(seq 200); do
        httpd_port=$(sed -n 's/^listening on .*:\([0-9]*\)$/\1/p' "$here/out")
        [ -n "$httpd_port" ] && return
        sleep 0.02
    done
    fail "httpd did not start: $(cat "$here/err")"
    exit 1
}

command -v python3 >/dev/null || { say "SKIPPED: python3 is not there"; exit 77; }
head -c 3000000 /dev/urandom >"$here/large"

if needs "curl" curl httpd; then
    start_httpd --max-body 5000000
    url=http://127.0.0.1:$httpd_port
    codes() { curl -s --max-time 20 -o /dev/null -w '%{http_code} %{num_connects}\n' "$@" | tr '\n' ' '; }
    expect "keep-alive: one connection for three requests" "200 1 200 0 200 0 " \
        "$(curl -s --max-time 20 -w '%{http_code} %{num_connects}\n' "$url/plaintext" -o /dev/null "$url/plaintext" \
            -o /dev/null "$url/async?ms=1" -o /dev/null | tr '\n' ' ')"
    expect "HEAD" "200 1 " "$(codes -I "$url/plaintext")"
    expect "HTTP/1.0" "200 1 " "$(codes -0 "$url/plaintext")"
    expect "a large upload, after 100-continue" "200 1 " \
        "$(codes -H 'Expect: 100-continue' --data-binary "@$here/large" "$url/async?ms=1")"
    expect "a large upload in chunks" "200 1 " \
        "$(codes -H 'Transfer-Encoding: chunked' -T "$here/large" -X POST "$url/async?ms=1")"
    expect "fifty at once" 50 "$(seq -f "url=$url/async?ms=%g" 50 |
        curl -s --no-progress-meter --max-time 20 --parallel --parallel-immediate --parallel-max 50 -K - | grep -c parked)"
    stop "$launched"
fi

if needs "wrk" wrk httpd; then
    start_httpd
    for options in "-c 64" "-c 16 -H Connection:close"; do
        # shellcheck disable=SC2086  # words are wanted
        wrk -t 1 -d 1s $options "http://127.0.0.1:$httpd_port/plaintext" >"$here/wrk" 2>&1
        grep -q 'Requests/sec' "$here/wrk" || fail "wrk $options: $(cat "$here/wrk")"
        grep -E 'Socket errors|Non-2xx' "$here/wrk" && fail "wrk $options: errors"
    done
    stop "$launched"
fi

if needs "nginx in front: a reverse proxy that keeps connections" nginx curl httpd; then
    start_httpd
    front=$(free_port)
    cat >"$here/front.conf" <<EOF
daemon off; master_process off; pid $here/front.pid; error_log $here/front.log;
events { }
http {
    access_log off; client_body_temp_path $here/body; proxy_temp_path $here/proxy; fastcgi_temp_path $here/a;
    uwsgi_temp_path $here/b; scgi_temp_path $here/c; client_max_body_size 8m;
    upstream behind { server 127.0.0.1:$httpd_port; keepalive 4; }
    server {
        listen 127.0.0.1:$front;
        location / { proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection ""; }
    }
}
EOF
    behind=$launched
    launch nginx -p "$here" -c "$here/front.conf"
    until_open "$front"
    for _ in 1 2 3 4 5; do
        expect "through nginx" "Hello, World!" "$(curl -s --max-time 20 "http://127.0.0.1:$front/plaintext")"
    done
    expect "a small upload through nginx" 200 "$(curl -s --max-time 20 -o /dev/null -w '%{http_code}' \
        --data-binary 'x=y' "http://127.0.0.1:$front/async?ms=1")"
    accepted=$(curl -s "http://127.0.0.1:$httpd_port/stats" | sed -n 's/.*"accepted": \([0-9]*\).*/\1/p')
    [ "$accepted" -le 3 ] || fail "nginx did not keep its connections: $accepted"
    stop "$launched"
    stop "$behind"
fi

if needs "nginx behind: the proxy" nginx curl proxy; then
    behind=$(free_port)
    mkdir "$here/www"
    cp "$here/large" "$here/www"
    cat >"$here/behind.conf" <<EOF
daemon off; master_process off; pid $here/behind.pid; error_log $here/behind.log; user root;
events { }
http {
    access_log off; client_body_temp_path $here/body; proxy_temp_path $here/proxy; fastcgi_temp_path $here/a;
    uwsgi_temp_path $here/b; scgi_temp_path $here/c; client_max_body_size 8m;
    server { listen 127.0.0.1:$behind; root $here/www; location /echo { return 200 "heard"; } }
}
EOF
    launch nginx -p "$here" -c "$here/behind.conf"
    nginx=$launched
    until_open "$behind"
    port=$(free_port)
    launch "$examples/proxy" "$port" 127.0.0.1 "$behind"
    until_open "$port"
    curl -s --max-time 20 "http://127.0.0.1:$port/large" | cmp -s - "$here/large" || fail "a file through the proxy"
    curl -s --max-time 20 -r 1000-1999999 "http://127.0.0.1:$port/large" |
        cmp -s - <(tail -c +1001 "$here/large" | head -c 1999000) || fail "a range through the proxy"
    expect "keep-alive through the proxy" "200 1 404 0 200 0 " \
        "$(curl -s --max-time 20 -w '%{http_code} %{num_connects}\n' "http://127.0.0.1:$port/large" -o /dev/null \
            "http://127.0.0.1:$port/none" -o /dev/null "http://127.0.0.1:$port/echo" -o /dev/null | tr '\n' ' ')"
    if command -v wrk >/dev/null; then
        wrk -t 1 -c 16 -d 1s "http://127.0.0.1:$port/echo" >"$here/wrk" 2>&1
        grep -E 'Socket errors|Non-2xx' "$here/wrk" && fail "wrk through the proxy: errors"
    fi
    stop "$launched"
    stop "$nginx"
fi

# The proxy passes the end on in each direction, and goes on in the other.
if needs "the proxy: half-close, both ways" socat proxy; then
    behind=$(free_port)
    port=$(free_port)
    launch socat "TCP-LISTEN:$behind,bind=127.0.0.1,fork,reuseaddr" SYSTEM:'wc -c'
    counter=$launched
    launch "$examples/proxy" "$port" 127.0.0.1 "$behind"
    until_open "$behind"
    until_open "$port"
    expect "the answer after the client's end" 3000000 \
        "$(socat -t 20 - "TCP:127.0.0.1:$port" <"$here/large" | tr -d ' ')"
    stop "$counter"
    launched_proxy=$launched
    # Behind it now somebody who has nothing to say, and hears all the same.
    launch socat -u "TCP-LISTEN:$behind,bind=127.0.0.1,reuseaddr" "OPEN:$here/heard,creat,trunc"
    listener=$launched
    until_open "$behind"
    socat -t 20 -u "OPEN:$here/large" "TCP:127.0.0.1:$port"
    wait "$listener"
    cmp -s "$here/heard" "$here/large" || fail "what one heard who said nothing"
    # And one who says all and is at its end while the client goes on.
    cat >"$here/behind.py" <<'PYTHON'
import socket, sys
s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
c, _ = s.accept()
c.sendall(b"first")
c.shutdown(socket.SHUT_WR)
n = 0
while part := c.recv(65536):
    n += len(part)
print(n, flush=True)
PYTHON
    launch python3 "$here/behind.py" "$behind"
    server=$launched
    python3 - "$port" <<'PYTHON' || fail "half-close from behind"
import socket, sys, time
for _ in range(100):  # until the server behind the proxy is there
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
    try:
        if (data := s.recv(100)):
            break
    except ConnectionError:
        pass
    time.sleep(0.05)
while part := s.recv(100):
    data += part
assert data == b"first", data
s.sendall(b"x" * 1000000)
s.close()
PYTHON
    wait "$server"
    expect "bytes after its own end" 1000000 "$(cat "$here/out")"
    stop "$launched_proxy"
fi

if needs "socat and the echo server" socat echo_server; then
    port=$(free_port)
    launch "$examples/echo_server" "$port"
    until_open "$port"
    socat -t 20 - "TCP:127.0.0.1:$port" <"$here/large" | cmp -s - "$here/large" || fail "echo of 3 MB"
    expect "the echo after a half-close" "hello" "$(printf hello | socat -t 20 - "TCP:127.0.0.1:$port")"
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        head -c 300000 "$here/large" | socat -t 20 - "TCP:127.0.0.1:$port" | cmp -s - <(head -c 300000 "$here/large") &
        crowd+=("$!")
    done
    for one in "${crowd[@]}"; do
        wait "$one" || fail "one of ten echoes at once"
    done
    stop "$launched"
fi

if needs "socat, Unix sockets and UDP" socat; then
    launch "$socket_peer" "$here/stream" "$here/datagram"
    peer=$launched
    for _ in $(seq 200); do
        udp=$(sed -n 's/^udp \([0-9]*\)$/\1/p' "$here/out")
        [ -n "$udp" ] && break
        sleep 0.02
    done
    expect "a Unix stream" "hello" "$(printf hello | socat -t 20 - "UNIX-CONNECT:$here/stream")"
    socat -t 20 - "UNIX-CONNECT:$here/stream" <"$here/large" | cmp -s - "$here/large" || fail "3 MB over a Unix socket"
    expect "a datagram" "hello" "$(printf hello | socat -t 1 - "UDP:127.0.0.1:$udp,shut-none" | head -c 5)"
    expect "a Unix datagram" "hello" \
        "$(printf hello | socat -t 1 - "UNIX-SENDTO:$here/datagram,bind=$here/mine" | head -c 5)"
    stop "$peer"
fi

if needs "the chat: a guest who does not read" chat; then
    port=$(free_port)
    launch "$examples/chat" "$port"
    until_open "$port"
    python3 - "$port" <<'PYTHON' || fail "chat"
import socket, sys, time
def join():
    return socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
talker, listener, deaf = join(), join(), join()
hears = listener.makefile("rb")
time.sleep(0.2)
late = []
for i in range(6000):
    begin = time.monotonic()
    talker.sendall(b"%d %s\n" % (i, b"x" * 900))
    line = hears.readline()
    late.append(time.monotonic() - begin)
    assert b" %d x" % i in line, (i, line[:40])
late.sort()
assert late[len(late) * 99 // 100] < 0.1, "the deaf one holds up the others: %.3f s" % late[-1]
heard = missed = 0
f = deaf.makefile("rb")
while heard + missed < 6000:
    line = f.readline()
    if line.startswith(b"* you missed"):
        missed += int(line.split()[3])
    else:
        heard += 1
assert missed > 0 and heard + missed == 6000, (heard, missed)
PYTHON
    stop "$launched"
fi

[ $parts -gt 0 ] || exit 77
[ $failures = 0 ] && say "all passed"
exit $((failures > 0))
