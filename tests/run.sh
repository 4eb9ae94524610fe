#!/usr/bin/env bash
# Install what is missing, build weft and run its tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage()
{
    cat <<'USAGE'
usage: tests/run.sh [--quick | --all | --preset NAME]... [--label LABEL] [--stress SECONDS] [--fuzz SECONDS]
                    [--models] [--minutes N] [--no-install]

Builds weft and runs its tests, in build/PRESET for each preset. Without options: release, asan and tsan.

  --quick            release only
  --all              release, clang, asan, tsan, lto
  --preset NAME      this preset (may be repeated): release debug asan tsan clang clang-tsan lto aarch64 fuzz
  --label LABEL      only tests with this label: unit stress header symbols install example reference peers fuzz model guard
  --stress SECONDS   how long each stress test runs at each worker count (default 2)
  --fuzz SECONDS     also the preset fuzz, each target for so long (default 2; installs clang and its libFuzzer)
  --models           also check the Promela models (installs spin)
  --minutes N        give up on what has not ended after N minutes
  --no-install       do not install anything

What is missing is installed with apt-get on Debian and Ubuntu (through sudo unless you are root); a second
run needs no network. The status is 0 if everything passed. The closing lines are ctest's summary: of the
release run, or, if something failed, of the first run that failed.
USAGE
}

presets=()
label=
stress=2
fuzz=2
models=0
minutes=0
install=1

add_presets()
{
    local preset
    for preset in "$@"; do
        [[ " ${presets[*]-} " == *" $preset "* ]] || presets+=("$preset")
    done
}

value_of()
{
    [ $# -ge 2 ] || { echo "$1 needs a value" >&2; exit 2; }
    echo "$2"
}

number_of()
{
    [[ ${2-} =~ ^[1-9][0-9]*$ ]] || { echo "$1 needs a number above 0" >&2; exit 2; }
    echo "$2"
}

while [ $# -gt 0 ]; do
    case $1 in
    --quick) add_presets release; shift ;;
    --all) add_presets release clang asan tsan lto; shift ;;
    --preset) name=$(value_of "$@"); add_presets "$name"; shift 2 ;;
    --label) label=$(value_of "$@"); shift 2 ;;
    --stress) stress=$(number_of "$@"); shift 2 ;;
    --fuzz) fuzz=$(number_of "$@"); add_presets fuzz; shift 2 ;;
    --models) models=1; shift ;;
    --minutes) minutes=$(number_of "$@"); shift 2 ;;
    --no-install) install=0; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "unknown option $1" >&2; usage >&2; exit 2 ;;
    esac
done
[ ${#presets[@]} -gt 0 ] || add_presets release asan tsan
for preset in "${presets[@]}"; do
    case $preset in
    release | debug | asan | tsan | clang | clang-tsan | lto | aarch64 | fuzz) ;;
    *) echo "unknown preset $preset" >&2; usage >&2; exit 2 ;;
    esac
done

# The tests choose their own settings; those of the caller's shell would be part of every one of them.
for variable in $(compgen -e | grep '^WEFT_' || true); do
    unset "$variable"
done
export WEFT_TEST_SECONDS=$stress
jobs=$(nproc)

say()
{
    printf '\n== %s\n' "$*"
}

# Run a command for as long as --minutes leaves.
within_limit()
{
    if [ "$minutes" = 0 ]; then
        "$@"
        return
    fi
    local left=$((minutes * 60 - SECONDS))
    if [ $left -le 0 ]; then
        echo "out of time: $minutes minutes are over"
        return 124
    fi
    timeout --kill-after=10 "$left" "$@"
}

install_what_is_missing()
{
    local options=(--tests) preset
    for preset in "${presets[@]}"; do
        case $preset in
        clang | clang-tsan | aarch64 | fuzz) options+=("--$preset") ;;
        esac
    done
    [ $models = 0 ] || options+=(--models)
    [ $install = 1 ] || options+=(--check)
    say "looking for what the build and the tests need"
    bash cmake/install-deps.sh "${options[@]}" && echo "everything is there"
}

# Run a build step; its output is shown only if it fails.
quietly()
{
    local log=$1
    shift
    within_limit "$@" >"$log" 2>&1 || { tail -n 100 "$log"; return 1; }
}

# ThreadSanitizer of older compilers does not get along with the address space layout of newer kernels.
fixed_layout()
{
    if [[ $1 == *tsan* ]] && setarch "$(uname -m)" -R true 2>/dev/null; then
        echo setarch "$(uname -m)" -R
    fi
}

# Configure, build and test one preset. What ctest says goes to the screen and to build/PRESET/tests.log.
run_preset()
{
    local preset=$1 build=build/$1
    local stress_limit=$((60 + 4 * stress)) stress_workers="2;8" select=() left_out=
    [ -z "$label" ] || select+=(-L "^$label\$")
    # The stress tests run with every number of workers where races are seen, elsewhere with two of them. What does not
    # depend on how the library is compiled, and what mostly sleeps, runs once; what is about hostile peers and about
    # races not again with another compiler and on another processor.
    [[ $preset != *tsan* ]] || stress_workers="1;2;3;8;32"
    if [ "$preset" != "$first_preset" ]; then
        left_out='example[.]|webapp$|downloads$'
        case $preset in
        clang | aarch64) left_out+='|test_hostile|stress_' ;;
        esac
        select+=(-LE '^(model|install|reference|peers|guard)$' -E "^($left_out)")
    fi
    # Only its own tests: the others have nothing to gain from being built like this.
    [ "$preset" != fuzz ] || select=(-L '^fuzz$')

    mkdir -p "$build"
    rm -f "$build/tests.log"
    say "$preset: building in $build"
    quietly "$build/configure.log" cmake --preset "$preset" -DWEFT_STRESS_TIMEOUT=$stress_limit \
        "-DWEFT_STRESS_WORKERS=$stress_workers" -DWEFT_FUZZ_SECONDS="$fuzz" -DWEFT_BUILD_TESTS=ON || return 1
    quietly "$build/build.log" cmake --build "$build" -j "$jobs" || return 1
    say "$preset: running the tests"
    # shellcheck disable=SC2046  # words are wanted
    within_limit $(fixed_layout "$preset") ctest --test-dir "$build" -j "$jobs" --output-on-failure \
        --no-label-summary --no-tests=error --output-junit tests.xml "${select[@]}" 2>&1 | tee "$build/tests.log"
}

# ctest's closing lines: from the line with the counts on.
summary_of()
{
    [ ! -e "build/$1/tests.log" ] || sed -n "/tests passed, .* out of/,\$p" "build/$1/tests.log"
}

install_what_is_missing
first_preset=${presets[0]}

failed=()
declare -A verdict
for preset in "${presets[@]}"; do
    begun=$SECONDS
    if run_preset "$preset"; then
        verdict[$preset]=passed
    else
        verdict[$preset]=FAILED
        failed+=("$preset")
    fi
    verdict[$preset]+=" in $((SECONDS - begun)) s"
done

say "results after $SECONDS s"
for preset in "${presets[@]}"; do
    counts=$(summary_of "$preset" | head -n 1)
    printf '%-10s %-16s %s\n' "$preset" "${verdict[$preset]}" "${counts:-no tests ran}"
done
[ ${#failed[@]} = 0 ] || echo "failed: ${failed[*]}"

closing=${failed[0]:-${presets[0]}}
say "$closing"
summary_of "$closing"
[ ${#failed[@]} = 0 ]
