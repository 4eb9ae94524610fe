#!/usr/bin/env bash
# Measure weft side by side with Tokio, Go, Boost.Fiber, oneTBB, libuv, asyncio and uvloop, and with what the machine
# does bare: fetch what is missing from the usual registries, build everything into build/peers, run it interleaved.
# What is measured and how to read it: docs/benchmarks.md; how each program is made: bench/peers/README.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage()
{
    cat <<'USAGE'
usage: bench/compare.sh [--only WORKLOADS] [--peers LIST] [--workers LIST] [--rounds N] [--quick] [--out DIR]
                        [--no-install] [--no-build] [--resume] [--publish] [--list]

Measures weft and its peers in one interleaved run (A B C A B C), one program at a time, and leaves a summary, tables
(text, CSV, JSON) and plots (SVG, PNG) in a directory.

  --only WORKLOADS  of those that --list names, separated by commas; A8 means A8, A8.yield and A8.chan, A all of A
  --peers LIST      of weft,tokio,go,boost,tbb,libuv,asyncio,uvloop,nginx,bare (all); weft is always measured
  --workers LIST    numbers of workers (1, one for each core, 4 times the cores)
  --rounds N        rounds that count, after one that does not (5; with --quick 3)
  --quick           smaller sizes; what takes seconds is run once
  --out DIR         where the results go (out/compare-DATE-TIME)
  --no-install      neither install nor download anything; what cannot be built is left out, and said so
  --no-build        measure what is built already
  --publish         also write the results to docs/benchmarks.md
  --resume          go on in --out DIR where a run that was broken off had got to
  --list            name the workloads, and who takes part in each

A run that takes too long is ended and reported. Servers listen on the loopback interface only.
USAGE
}

install=1
build=1
peers=tokio,go,boost,tbb,libuv,asyncio,uvloop,nginx,bare
measure=()
while [ $# -gt 0 ]; do
    case $1 in
    --quick | --publish | --resume) measure+=("$1") ;;
    --list) build=0; install=0; measure+=("$1") ;;
    --only | --workers | --rounds | --out | --peers)
        if [ $# -lt 2 ]; then
            echo "bench/compare.sh: $1 needs a value" >&2
            exit 2
        fi
        if [ "$1" = --peers ]; then peers=$2; else measure+=("$1" "$2"); fi
        shift
        ;;
    --no-install) install=0 ;;
    --no-build) build=0 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
    shift
done

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/go/bin:$HOME/.cargo/bin
root=$PWD
out=$root/build/peers
missing=$out/missing.tsv
weft=build/bench-release
mkdir -p "$out/bin" "$out/logs"
[ $build = 0 ] || : >"$missing"

# Peer, and why it does not take part.
leave_out()
{
    printf '%s\t%s\n' "$1" "$2" >>"$missing"
    echo "   $1 is left out: $2"
}

updated=0
apt_install()
{
    [ $install = 1 ] && command -v apt-get >/dev/null || return 1
    local sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    if [ $updated = 0 ]; then
        $sudo apt-get -qq update >>"$out/logs/apt.log" 2>&1 || true
        updated=1
    fi
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "$@" \
        >>"$out/logs/apt.log" 2>&1
}

# at_least HAVE WANTED: versions with dots
at_least()
{
    [ -n "$1" ] && [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

have_header()
{
    echo "#include <$1>" | c++ -E -x c++ - >/dev/null 2>&1
}

# need_header HEADER PACKAGE
need_header()
{
    have_header "$1" || { apt_install g++ "$2" && have_header "$1"; }
}

# build_log NAME COMMAND…: 0, or 1 with the peer left out
build_log()
{
    local name=$1
    shift
    if ! "$@" >"$out/logs/$name.log" 2>&1; then
        leave_out "$name" "its build failed (build/peers/logs/$name.log)"
        return 1
    fi
}

rust_version()
{
    rustc --version 2>/dev/null | sed -n 's/^rustc \([0-9.]*\).*/\1/p'
}

# Debian 12's own rustc is too old; rustc-web and cargo-web are the newer ones it keeps for browsers.
rust_wanted=1.85
build_tokio()
{
    if ! at_least "$(rust_version)" $rust_wanted; then
        apt_install rustc-web cargo-web || apt_install rustc cargo || true
    fi
    if ! at_least "$(rust_version)" $rust_wanted; then
        leave_out tokio "needs Rust $rust_wanted, found $(rust_version)"
        return
    fi
    local offline=()
    [ $install = 1 ] || offline=(--offline)
    build_log tokio env CARGO_TARGET_DIR="$out/tokio" cargo build --release "${offline[@]}" \
        --manifest-path bench/peers/tokio/Cargo.toml && cp "$out/tokio/release/peer-tokio" "$out/bin/"
}

go_version()
{
    go env GOVERSION 2>/dev/null | sed 's/^go//'
}

# From 1.21 on the go command fetches the toolchain that go.mod asks for.
build_go()
{
    if ! at_least "$(go_version)" 1.21; then
        apt_install -t "$(. /etc/os-release && echo "$VERSION_CODENAME")-backports" golang-go ||
            apt_install golang-go || true
    fi
    if ! at_least "$(go_version)" 1.21; then
        leave_out go "needs Go 1.25, found $(go_version)"
        return
    fi
    local environment=(CGO_ENABLED=0)
    [ $install = 1 ] || environment+=(GOFLAGS=-mod=mod GOPROXY=off)
    build_log go env "${environment[@]}" go build -C bench/peers/go -trimpath -o "$out/bin/peer-go" .
}

cxx=(c++ -std=gnu++17 -O2 -DNDEBUG -Wall -Wextra -Wno-maybe-uninitialized -pthread)
c=(cc -std=gnu11 -O2 -Wall -Wextra -pthread)

build_boost()
{
    if ! need_header boost/fiber/all.hpp libboost-fiber-dev || ! need_header boost/coroutine2/all.hpp libboost-fiber-dev
    then
        leave_out boost "Boost.Fiber (libboost-fiber-dev) not found"
        return
    fi
    build_log boost "${cxx[@]}" bench/peers/boost/boost.cpp -o "$out/bin/peer-boost" -lboost_fiber -lboost_context
}

build_tbb()
{
    if ! need_header oneapi/tbb/task_group.h libtbb-dev; then
        leave_out tbb "oneTBB (libtbb-dev) not found"
        return
    fi
    build_log tbb "${cxx[@]}" bench/peers/tbb/tbb.cpp -o "$out/bin/peer-tbb" -ltbb
}

build_libuv()
{
    if ! need_header uv.h libuv1-dev; then
        leave_out libuv "libuv (libuv1-dev) not found"
        return
    fi
    build_log libuv "${c[@]}" bench/peers/libuv/uv.c -o "$out/bin/peer-libuv" -luv
}

build_bare()
{
    build_log bare "${c[@]}" bench/peers/bare/bare.c -o "$out/bin/peer-bare"
}

build_asyncio()
{
    if ! python3 -c 'import asyncio; asyncio.timeout' 2>/dev/null; then
        leave_out asyncio "needs Python 3.11"
    fi
}

build_uvloop()
{
    local python=$out/venv/bin/python3
    if ! "$python" -c 'import uvloop' 2>/dev/null && [ $install = 1 ]; then
        { python3 -m venv "$out/venv" || { apt_install python3-venv && python3 -m venv "$out/venv"; }; } \
            >"$out/logs/uvloop.log" 2>&1 &&
            "$python" -m pip install -q -r bench/peers/asyncio/requirements.txt >>"$out/logs/uvloop.log" 2>&1 || true
    fi
    "$python" -c 'import uvloop' 2>/dev/null || leave_out uvloop "uvloop could not be installed"
}

build_nginx()
{
    command -v nginx >/dev/null || leave_out nginx "not installed"
}

build_weft()
{
    local log=$out/logs/weft.log
    local options=(-DWEFT_BUILD_BENCH=ON -DWEFT_BUILD_EXAMPLES=ON -DWEFT_BUILD_TESTS=OFF -DWEFT_LTO=ON)
    if ! { cmake --preset release -B $weft "${options[@]}" &&
        cmake --build $weft --target bench_micro bench_echo_server bench_epoll_echo bench_echo_client httpd; } \
        >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        echo "bench/compare.sh: weft's build failed; all of it in $log" >&2
        exit 1
    fi
    cmake --build $weft --target bench_epoll_server >>"$log" 2>&1 || true # there only with http-parser
}

if [ $install = 1 ]; then
    echo "== looking for what is needed"
    bash cmake/install-deps.sh --bench
    command -v python3 >/dev/null || apt_install python3
fi
if [ $build = 1 ]; then
    echo "== building weft"
    build_weft
    for peer in ${peers//,/ }; do
        [ "$peer" != weft ] || continue
        if ! declare -F "build_$peer" >/dev/null; then
            echo "bench/compare.sh: no peer $peer" >&2
            exit 2
        fi
        echo "== building $peer"
        "build_$peer" || true
    done
fi

python=python3
[ ! -x "$out/venv/bin/python3" ] || python=$out/venv/bin/python3

# exec: a signal to this script reaches the process that has programs to stop.
export PYTHONDONTWRITEBYTECODE=1
exec python3 bench/compare.py --build "$weft" --programs "$out" --python "$python" --peers "$peers" "${measure[@]}"
