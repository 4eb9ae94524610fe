#!/usr/bin/env bash
# Count the instructions of the hot paths and compare them with counts.txt, which holds what they were when somebody
# last looked. Status 0: none has grown by more than the tolerance; 1: some have; 77: cannot be told here.
set -euo pipefail

usage()
{
    cat <<'USAGE'
usage: bench/guard/run.sh PROGRAM [COMPILER] [--update]

PROGRAM is what hot_paths.c was built to; COMPILER says with what ("GNU 12 x86_64 RelWithDebInfo"): counts are those of
one compiler, so with another one nothing is compared.

  --update   write the counts to counts.txt instead of comparing
USAGE
}

tolerance=5 # percent; from run to run counts differ by half a percent at most
update=0
arguments=()
for argument in "$@"; do
    case $argument in
    --update) update=1 ;;
    -h | --help) usage; exit 0 ;;
    *) arguments+=("$argument") ;;
    esac
done
[ ${#arguments[@]} -ge 1 ] || { usage >&2; exit 2; }
program=${arguments[0]}
compiler=${arguments[1]-}
counts=$(dirname "${BASH_SOURCE[0]}")/counts.txt

command -v valgrind >/dev/null || { echo "skipped: valgrind is not installed"; exit 77; }
expected_compiler=$(sed -n 's/^# compiler: //p' "$counts" 2>/dev/null || true)
if [ $update = 0 ] && [ -n "$compiler" ] && [ "$compiler" != "$expected_compiler" ]; then
    echo "skipped: the counts are those of '$expected_compiler', this is '$compiler'"
    exit 77
fi

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
if ! times=$(valgrind --quiet --tool=callgrind --callgrind-out-file="$directory/out" "$program" 2>"$directory/errors"); then
    cat "$directory/errors" >&2
    exit 1
fi

# One file a path: the name that ended it and the total of all threads.
measured=$(for file in "$directory"/out.*; do
    sed -n 's/^desc: Trigger: Client Request: //p; s/^totals: //p' "$file" | paste -sd'\t'
done | awk -F'\t' -v times="$times" '{ printf "%s\t%.1f\n", $1, $2 / times }' | sort)

if [ $update = 1 ]; then
    {
        echo "# Instructions an operation of hot_paths.c takes; written by run.sh --update."
        echo "# compiler: ${compiler:-$expected_compiler}"
        echo "$measured"
    } >"$counts"
    cat "$counts"
    exit 0
fi

awk -F'\t' -v tolerance=$tolerance '
    FNR == NR { if ($0 !~ /^#/) expected[$1] = $2; next }
    { seen[$1] = 1 }
    !($1 in expected) { printf "%-45s %8.1f  is new: run with --update\n", $1, $2; bad = 1; next }
    {
        change = ($2 / expected[$1] - 1) * 100
        verdict = change > tolerance ? "MORE THAN BEFORE" : change < -tolerance ? "less: run with --update" : ""
        printf "%-45s %8.1f %8.1f %+6.1f %%  %s\n", $1, expected[$1], $2, change, verdict
        if (change > tolerance) bad = 1
    }
    END {
        for (name in expected) if (!(name in seen)) { printf "%-45s was not measured\n", name; bad = 1 }
        exit bad
    }' "$counts" <(echo "$measured")
