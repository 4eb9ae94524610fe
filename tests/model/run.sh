#!/bin/sh
# Check the models with spin: the protocols as they are must pass, each mutation must fail in the way named here.
# Works in a temporary directory, on two cases at a time. Exit status: 0 all as expected, 1 not, 77 spin or a C
# compiler is missing.

set -u

usage() {
    echo "usage: ${0##*/} [--help]"
    echo "Checks the models of park/ready/cancel, of sleep/wake and of select, and that their mutations fail."
}

case ${1-} in
    '') ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
esac

here=$(cd "$(dirname "$0")" && pwd) || exit 1
compiler=${CC:-cc}
for tool in spin "$compiler"; do
    command -v "$tool" >/dev/null 2>&1 || { echo "model: $tool is not installed" >&2; exit 77; }
done
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cd "$work" || exit 1

# EXPECTED MODEL DEFINES...; the long ones first, so that the two at work end together
cat >cases <<'END'
complete idle OUTSIDE
complete idle LOCAL
complete idle PRODUCERS
complete idle MIXED
complete idle STALE
complete park IN_PLACE
complete park ON_ITS_OWN
complete select CANCELLED
complete select THREE
complete select CROSSED
complete select SAME

deadlock park IN_PLACE MUTATION_NO_WAIT_FENCE
deadlock park ON_ITS_OWN MUTATION_NO_START_FENCE
deadlock park IN_PLACE MUTATION_NO_CANCEL_FENCE
deadlock park ON_ITS_OWN MUTATION_NO_CANCEL_FENCE
assertion park IN_PLACE MUTATION_PARKED_BEFORE_SAVED
assertion park IN_PLACE MUTATION_READY_PLAIN_SET
deadlock park IN_PLACE MUTATION_NO_NOTIFIED
deadlock park IN_PLACE MUTATION_NOTIFIED_BY_LOAD

deadlock idle OUTSIDE MUTATION_NO_SLEEP_FENCE
deadlock idle PRODUCERS MUTATION_NO_SLEEP_FENCE
deadlock idle OUTSIDE MUTATION_NO_RECHECK
deadlock idle LOCAL MUTATION_RECHECK_OWN_ONLY
deadlock idle OUTSIDE MUTATION_NO_NOTIFY_FENCE
deadlock idle PRODUCERS MUTATION_NO_WAKE_FENCE
deadlock idle LOCAL MUTATION_NO_SEARCHER_RULE
deadlock idle LOCAL MUTATION_NO_SEARCHER_FENCE
deadlock idle PRODUCERS MUTATION_NO_RETRY
deadlock idle PRODUCERS MUTATION_NO_RETRY_FENCE
deadlock idle LOCAL MUTATION_BIT_BEFORE_STATE
assertion idle PRODUCERS MUTATION_WAKE_WITHOUT_CLAIM
deadlock idle STALE MUTATION_EDGE_SWALLOWED

assertion select THREE MUTATION_NO_CLAIM
assertion select THREE MUTATION_ONE_BY_ONE
deadlock select CROSSED MUTATION_UNORDERED
assertion select CROSSED MUTATION_NO_RECHECK
assertion select THREE MUTATION_NO_WITHDRAWAL
assertion select CANCELLED MUTATION_CANCEL_UNCLAIMED
assertion select CANCELLED MUTATION_NO_WAIT_OUT
END

# What a finished run says: complete, deadlock, assertion, or broken (truncated, out of memory, not even compiled).
verdict() {
    if grep -q '^pan:1: invalid end state' out; then
        echo deadlock
    elif grep -q '^pan:1: assertion violated' out; then
        echo assertion
    elif grep -q 'max search depth too small\|hash table full\|out of memory\|Search not completed' out; then
        echo broken
    elif grep -q 'errors: 0$' out && grep -q '^Full statespace search' out; then
        echo complete
    else
        echo broken
    fi
}

# To compile takes longer than most searches: only the complete ones are worth optimisation.
optimisation() {
    case $1 in
        complete) echo -O1 ;;
        *) echo -O0 ;;
    esac
}

# check EXPECTED MODEL DEFINES...; in a directory of its own
check() {
    expected=$1
    model=$2
    shift 2
    defines=
    for name; do defines="$defines -D$name"; done

    # shellcheck disable=SC2086 # a list of options
    if spin -a $defines "$here/$model.pml" >out 2>&1 &&
        "$compiler" "$(optimisation "$expected")" -w -DSAFETY -DMEMLIM=2000 -o pan pan.c >>out 2>&1; then
        timeout 120 ./pan -m100000 -w22 >out 2>&1
    fi
    got=$(verdict)
    states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' out)
    word=ok
    [ "$got" = "$expected" ] || word=FAILED
    printf '%-6s %-6s %-42s %s (%s states)\n' "$word" "$model" "$*" "$got" "${states:-no}"
    [ "$word" = ok ] || { echo "       expected $expected; the end of the output:"; tail -n 12 out; }
}

# Work on the cases that nobody else has begun: whoever makes the directory has it.
work_through() {
    number=0
    while read -r line; do
        number=$((number + 1))
        if [ -z "$line" ] || ! mkdir "case$number" 2>/dev/null; then
            continue
        fi
        # shellcheck disable=SC2086 # words of a case
        (cd "case$number" && check $line >report && rm -f pan* && cat report)
    done <cases
}

work_through &
first=$!
work_through &
trap 'kill "$first" "$!" 2>/dev/null; exit 1' HUP INT TERM
wait

expected=$(grep -c . cases)
passed=$(cat case*/report | grep -c '^ok ')
failed=$((expected - passed))
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
