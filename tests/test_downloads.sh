#!/usr/bin/env bash
# Eight downloads over HTTPS from servers of this machine, with a certificate made for it: how long they take, what is
# printed, that certificates are verified, and, if nginx is there, that HTTP/2 carries all eight in one connection.
#
# usage: test_downloads.sh PATH_TO_DOWNLOADS
#
# Without python3 or openssl there is nothing to download from: skipped (status 77).
set -u
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin

downloads=${1:?usage: test_downloads.sh PATH_TO_DOWNLOADS}
script=$(dirname "${BASH_SOURCE[0]}")/downloads_server.py
here=$(mktemp -d)
chmod 755 "$here"
pids=()
trap 'for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done; rm -rf "$here"' EXIT

fail() {
    printf 'FAILED: %s\n' "$*"
    [ ! -e "$here/out" ] || cat "$here/out" "$here/err"
    exit 1
}

if ! python3 -c 'import ssl' 2>/dev/null || ! openssl version >/dev/null 2>&1; then
    echo "SKIPPED: python3 or openssl is not there, so there is no HTTPS server to download from"
    exit 77
fi

# certificate NAME: one that is its own authority.
certificate() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=weft test" \
        -addext "subjectAltName=IP:127.0.0.1,DNS:localhost" -keyout "$here/$1.key" -out "$here/$1.pem" 2>"$here/err" ||
        fail "openssl made no certificate"
}

# run SECONDS WANTED ARGUMENT…: run downloads, compare its list of codes, and that it takes no longer.
run() {
    local limit=$1 wanted=$2 seconds
    shift 2
    timeout 30 "$downloads" "$@" >"$here/out" 2>"$here/err" || fail "$*: status $?"
    [ "$(grep -c '^2[0-9][0-9]$' "$here/out")" = 8 ] || fail "$*: not eight codes, each on a line"
    [ "$(grep '^\[' "$here/out")" = "$wanted" ] || fail "$*: not $wanted in the order of asking"
    grep -qx 'Count: 8' "$here/out" || fail "$*: no Count: 8"
    seconds=$(sed -n 's/ s$//p' "$here/out")
    awk -v is="$seconds" -v limit="$limit" 'BEGIN { exit !(is >= 1 && is < limit) }' ||
        fail "$*: $seconds s, not between 1 and $limit"
    echo "WEFT_WORKERS=$WEFT_WORKERS $*: $seconds s"
}

certificate server
certificate other

mkfifo "$here/port" "$here/life"
exec 9<>"$here/life" # the server ends when this is closed, by whatever end
python3 "$script" "$here/server.pem" "$here/server.key" >"$here/port" <"$here/life" 9>&- &
pids+=($!)
read -r port <"$here/port" || fail "the server did not start"
url=https://127.0.0.1:$port/image/

codes='[200, 201, 202, 203, 204, 205, 206, 207]'
for WEFT_WORKERS in 1 4; do
    export WEFT_WORKERS
    run 3 "$codes" "$url" "$here/server.pem" # 1.2 s, and time for a busy machine; one after the other would be 9.2
    run 3 "$codes" "$url" "$here/server.pem" pool
done

# Whose certificate was not signed by one that is trusted is not talked to.
timeout 30 "$downloads" "$url" "$here/other.pem" >"$here/out" 2>"$here/err" && fail "a certificate that nobody knows was accepted"
[ "$(grep -c certificate "$here/err")" = 8 ] || fail "the certificate is not said to be the reason"

if ! command -v nginx >/dev/null || ! nginx -V 2>&1 | grep -q http_v2; then
    echo "nginx with HTTP/2 is not there: HTTP/2 is left out"
    exit 0
fi

# A port that was free a moment ago: somebody else may be quicker.
serve_http2() {
    local port=$1
    cat >"$here/nginx.conf" <<CONF
daemon off;
worker_processes 1;
pid $here/nginx.pid;
error_log $here/nginx.log;
events { worker_connections 64; }
http {
    log_format http2 '\$connection \$server_protocol';
    access_log $here/access.log http2;
    client_body_temp_path $here/body; proxy_temp_path $here/proxy; fastcgi_temp_path $here/fastcgi;
    uwsgi_temp_path $here/uwsgi; scgi_temp_path $here/scgi;
    server {
        listen 127.0.0.1:$port ssl http2;
        ssl_certificate $here/server.pem;
        ssl_certificate_key $here/server.key;
        location / { return 200 "image"; }
    }
}
CONF
    nginx -p "$here" -c "$here/nginx.conf" 2>>"$here/nginx.log" 9>&- &
    nginx=$!
    for _ in {1..100}; do
        kill -0 "$nginx" 2>/dev/null || return 1
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && return 0
        sleep 0.05
    done
    return 1
}

for try in 1 2 3; do
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    serve_http2 "$port" && break
    [ $try != 3 ] || { cat "$here/nginx.log"; fail "nginx did not start"; }
done
pids+=("$nginx")

ones='[200, 200, 200, 200, 200, 200, 200, 200]'
for WEFT_WORKERS in 1 4; do
    export WEFT_WORKERS
    : >"$here/access.log"
    run 3 "$ones" "https://127.0.0.1:$port/" "$here/server.pem"
    [ "$(grep -c 'HTTP/2.0' "$here/access.log")" = 8 ] || fail "not eight requests by HTTP/2"
    [ "$(cut -d' ' -f1 "$here/access.log" | sort -u | wc -l)" = 1 ] || fail "HTTP/2: more than one connection"
    echo "HTTP/2: eight requests in one connection"
done
