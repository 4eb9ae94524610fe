#!/usr/bin/env bash
# Install what is missing, build weft, and measure it: the HTTP server and the echo server under load, scaling,
# and the micro workloads. What and how: docs/measuring.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage()
{
    cat <<'USAGE'
usage: bench/run.sh [--quick] [--out DIR] [--only SECTIONS] [--workers LIST] [--rounds N] [--seconds N]
                    [--preset NAME] [--no-install] [--no-build]

Measures, showing what runs and how long it will take, and leaves tables (text, CSV, JSON), plots (SVG, PNG)
and a summary of one page in a directory.

  --quick            two minutes: shorter, fewer combinations
  --out DIR          where the results go (out/DATE-TIME)
  --only SECTIONS    of http,echo,stalls,low,scaling,micro, separated by commas (all)
  --workers LIST     worker counts of weft's servers (1, doubling up to the cores, 4 times the cores)
  --rounds N         rounds of each server measurement; their median counts (3)
  --seconds N        length of one server measurement (3; with --quick 1)
  --preset NAME      what to build and measure (release)
  --no-install       do not install anything
  --no-build         measure what is built already

Servers listen on the loopback interface only and are stopped however this ends.
USAGE
}

preset=release
install=1
build=1
measure=()
while [ $# -gt 0 ]; do
    case $1 in
    --quick) measure+=("$1") ;;
    --out | --only | --workers | --rounds | --seconds | --preset)
        if [ $# -lt 2 ]; then
            echo "bench/run.sh: $1 needs a value" >&2
            exit 2
        fi
        if [ "$1" = --preset ]; then preset=$2; else measure+=("$1" "$2"); fi
        shift
        ;;
    --no-install) install=0 ;;
    --no-build) build=0 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
    shift
done

# Servers are often installed outside an ordinary user's path.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

install_python()
{
    command -v python3 >/dev/null && return
    echo "== installing python3"
    local sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get -qq update || true
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install python3 >/dev/null
}

build_dir=build/bench-$preset

if [ $install = 1 ]; then
    echo "== looking for what is needed"
    bash cmake/install-deps.sh --bench
    install_python
fi
if [ $build = 1 ]; then
    echo "== building $build_dir"
    log=$build_dir/bench-build.log
    mkdir -p "$build_dir"
    # Without the tests: what they need is not installed for this. So not in the directory that tests/run.sh uses.
    options=(-DWEFT_BUILD_BENCH=ON -DWEFT_BUILD_EXAMPLES=ON -DWEFT_BUILD_TESTS=OFF -DWEFT_LTO=ON)
    if ! { cmake --preset "$preset" -B "$build_dir" "${options[@]}" && cmake --build "$build_dir"; } >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        echo "bench/run.sh: the build failed; all of it in $log" >&2
        exit 1
    fi
fi

# exec: a signal to this script reaches the process that has servers to stop.
export PYTHONDONTWRITEBYTECODE=1
exec python3 bench/measure.py --build "$build_dir" "${measure[@]}"
