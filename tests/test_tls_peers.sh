#!/usr/bin/env bash
# TLS against others' in both directions: openssl's s_client and s_server, curl, Python's ssl and asyncio.
#
# usage: test_tls_peers.sh PATH_TO_TLS_PEER
#
# Without openssl, which makes the certificates, it is skipped (status 77); curl and python3 are left out, with a word,
# where they are not there.
set -uo pipefail

peer=${1:?usage: test_tls_peers.sh PATH_TO_TLS_PEER}
script=$(dirname "${BASH_SOURCE[0]}")/tls_peer.py
here=$(mktemp -d)
pid=
trap '[ -n "$pid" ] && kill -KILL "$pid" 2>/dev/null; rm -rf "$here"' EXIT
export WEFT_WORKERS=2

fail() {
    printf 'FAILED: %s\n' "$*"
    [ ! -s "$here/log" ] || tail -n 20 "$here/log"
    exit 1
}

command -v openssl >/dev/null || { echo "SKIPPED: openssl is not there"; exit 77; }

curve=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2)
authority=$here/authority.pem certificate=$here/certificate.pem key=$here/key.pem
openssl req -x509 "${curve[@]}" -subj "/CN=weft test" -keyout "$here/authority.key" -out "$authority" 2>"$here/log" &&
    openssl req -new "${curve[@]}" -subj /CN=localhost -keyout "$key" -out "$here/request" 2>>"$here/log" &&
    openssl x509 -req -in "$here/request" -CA "$authority" -CAkey "$here/authority.key" -CAcreateserial -days 2 \
        -extfile <(echo subjectAltName=DNS:localhost) -out "$certificate" 2>>"$here/log" ||
    fail "no certificates"

# ---- weft's server ----

mkfifo "$here/port"
"$peer" server "$certificate" "$key" >"$here/port" 2>"$here/log" &
pid=$!
read -r port <"$here/port" || fail "the server did not start"

for version in -tls1_2 -tls1_3; do
    # -quiet: it stays after the end of its input, until weft takes its leave.
    heard=$(printf 'GET / HTTP/1.0\n' | timeout 10 openssl s_client -quiet -verify_return_error -CAfile "$authority" \
        -verify_hostname localhost -servername localhost $version -connect "127.0.0.1:$port" 2>>"$here/log" |
        grep -o '^page')
    [ "$heard" = page ] || fail "s_client $version got \"$heard\""
    echo "openssl s_client $version: ok"
done
timeout 10 openssl s_client -tls1_1 -cipher 'ALL:@SECLEVEL=0' -connect "127.0.0.1:$port" </dev/null >"$here/log" 2>&1 &&
    fail "s_client -tls1_1 was accepted"
echo "openssl s_client -tls1_1: refused"

if command -v curl >/dev/null; then
    page=$(curl --silent --show-error --max-time 10 --cacert "$authority" --resolve "localhost:$port:127.0.0.1" \
        "https://localhost:$port/") || fail "curl: status $?"
    [ "$page" = page ] || fail "curl got \"$page\""
    curl --silent --max-time 10 --resolve "localhost:$port:127.0.0.1" "https://localhost:$port/" && \
        fail "curl trusts a stranger"
    echo "curl: ok"
else
    echo "curl: SKIPPED, it is not there"
fi

has_python=1
python3 -c 'import asyncio, ssl, sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null || has_python=
if [ -n "$has_python" ]; then
    timeout 20 python3 "$script" client "$port" "$authority" || fail "Python's clients"
    echo "Python's ssl and asyncio as clients: ok"
else
    echo "Python's ssl and asyncio: SKIPPED, python3 (3.8 or later) is not there"
fi

[ "$("$peer" client "$port" "$authority" QUIT QUIT | tail -n 1)" = "ok " ] || fail "weft's own client"
wait "$pid" || fail "the server: status $?"
pid=

# ---- weft's client ----

# A free port: s_server cannot say which one it has been given.
for version in -tls1_2 -tls1_3; do
    coproc server { exec openssl s_server -rev $version -accept 127.0.0.1:0 -cert "$certificate" -key "$key" 2>&1; }
    pid=$server_PID
    while read -r line <&"${server[0]}"; do
        case $line in ACCEPT*) port=${line##*:}; break ;; esac
    done
    heard=$("$peer" client "$port" "$authority" hello olleh) || fail "s_server $version: $heard"
    echo "openssl s_server $version: ok, $(head -n 1 <<<"$heard")"
    heard=$("$peer" client "$port" "$here/key.pem" hello olleh 2>&1) && fail "no authority, and accepted"
    kill "$pid"
    wait "$pid" 2>/dev/null
    pid=
done

if [ -n "$has_python" ]; then
    for kind in ssl asyncio; do
        python3 "$script" server $kind "$certificate" "$key" >"$here/port" 2>"$here/log" &
        pid=$!
        read -r port <"$here/port" || fail "Python's server did not start"
        heard=$("$peer" client "$port" "$authority" hello hello) || fail "Python's $kind as the server: $heard"
        wait "$pid" || fail "Python's $kind as the server: status $?"
        pid=
        echo "Python's $kind as the server: ok"
    done
fi
