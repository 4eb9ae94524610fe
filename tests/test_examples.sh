#!/usr/bin/env bash
# usage: test_examples.sh PROGRAM
#
# Runs an example and compares what it prints, and when, with expected/EXAMPLE.txt, which has a line for each
# line of output:
#
#   SECONDS  TEXT   this line, not before that time from the start, nor much later
#   SECONDS~ TEXT   the same; neighbours so marked come in any order
#   status N        the exit status, if it is not 0 (128 + N: ended by signal N)
#
# In the text <n> is any number, <*> is anything. Numbers that must be in proportion are compared below, in a
# function named after the example.
set -uo pipefail
export LC_ALL=C
ulimit -c 0

program=$1
name=$(basename "$program")
expected=$(dirname "${BASH_SOURCE[0]}")/expected/$name.txt
slack=2.5 # seconds that a line may be late on a busy machine: 3 seconds of waits must not become 6

fail()
{
    printf '%s: %s\n' "$name" "$*"
    printf '%s\n' "--- what it printed, and when:" "${stamped[@]}"
    exit 1
}

# Run it on a terminal, so that each line comes out as it is printed, with stderr among them.
run()
{
    local began=$EPOCHREALTIME line
    mapfile -t stamped < <(
        script --quiet --return --command "exec '$program'" /dev/null </dev/null |
            while IFS= read -r line; do
                printf '%s %s\n' "$EPOCHREALTIME" "${line%$'\r'}"
            done | awk -v began="$began" '{ now = $1; sub(/^[^ ]* /, ""); printf "%.2f %s\n", now - began, $0 }'
        echo "${PIPESTATUS[0]}"
    )
    status=${stamped[-1]}
    unset 'stamped[-1]'
}

# matches STAMPED EXPECTED
matches()
{
    local when=${2%%[~ ]*} pattern=${2#* } at=${1%% *} text=${1#* }
    pattern=$(sed -E 's/^ //; s/[][\.*^$+?(){}|]/\\&/g; s/<n>/ *[0-9]+/g; s/<\\\*>/.*/g' <<<"$pattern")
    [[ $text =~ ^$pattern$ ]] && awk -v at="$at" -v when="$when" -v slack=$slack \
        'BEGIN { exit !(at >= when - 0.01 && at <= when + slack) }'
}

compare()
{
    local wanted=0 lines=() pending=() i=0 line found
    mapfile -t lines <"$expected"
    if [[ ${lines[0]} == status\ * ]]; then
        wanted=${lines[0]#status }
        lines=("${lines[@]:1}")
    fi
    [ ${#stamped[@]} = ${#lines[@]} ] || fail "${#lines[@]} lines are expected, not ${#stamped[@]}"
    for line in "${stamped[@]}"; do
        # The lines that may come next: one, or those of a block of any order that are left.
        while [ ${#pending[@]} = 0 ] || [[ ${pending[-1]} == +([0-9.])~* && ${lines[i]-} == +([0-9.])~* ]]; do
            pending+=("${lines[i]}")
            i=$((i + 1))
        done
        found=
        for candidate in "${!pending[@]}"; do
            if matches "$line" "${pending[candidate]}"; then
                found=$candidate
                break
            fi
        done
        [ -n "$found" ] || fail "expected: \"${pending[0]}\", not: \"$line\""
        unset "pending[$found]"
        pending=(${pending[@]+"${pending[@]}"})
    done
    [ "$status" = "$wanted" ] || fail "exit status $wanted is expected, not $status"
}

# numbers LINE: those in the LINE-th line of the output, without the time.
numbers()
{
    grep -oE '[0-9]+' <<<"${stamped[$1 - 1]#* }"
}

# What is being shown: which times overlap, which are shared out, and which of the two makes no difference.
contrast()
{
    local one several
    { read -r one; read -r several; } < <(numbers 2)
    ((one >= 100 && one < 200 && several < 200)) || return 1 # waiting
    { read -r one; read -r several; } < <(numbers 3)
    ((one >= 300)) || return 1 # computing
    [ "$(nproc)" = 1 ] || ((several < one * 9 / 10)) || return 1
    { read -r one; read -r several; } < <(numbers 4)
    ((one >= 300 && several < 290)) || return 1 # blocking its worker
    { read -r one; read -r several; } < <(numbers 5)
    ((one >= 100 && one < 200 && several < 200)) # blocking in the pool
}

busy_echo()
{
    local p99
    p99=$(numbers 2 | sed -n 4p)
    ((p99 < 500000 && $(numbers 3) > 0))
}

stackless()
{
    local with without
    with=$(numbers 1 | sed -n 2p)
    without=$(numbers 2 | sed -n 2p)
    ((with >= 4096 && without < with / 4))
}

shopt -s extglob
for try in 1 2 3; do # the proportions need a machine that is free for a second
    run
    compare
    if ! declare -F "$name" >/dev/null || "$name"; then
        exit 0
    fi
done
fail "the numbers are not in the proportion that the example is about"
