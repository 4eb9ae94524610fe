#!/bin/sh
# Check the models with spin: the protocols as they are must pass, each mutation must fail in the way named here.
# Works in a temporary directory. Exit status: 0 all as expected, 1 not, 77 spin or a C compiler is missing.

set -u

usage() {
    echo "usage: ${0##*/} [--help]"
    echo "Checks the models of park/ready/cancel and of sleep/wake, and that their mutations fail."
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

passed=0
failed=0

# What a finished run says: complete, deadlock, assertion, or broken (truncated, out of memory, not even compiled).
verdict() {
    if grep -q 'max search depth too small\|hash table full\|out of memory\|Search not completed' out &&
        ! grep -q '^pan:1:' out; then
        echo broken
    elif grep -q '^pan:1: invalid end state' out; then
        echo deadlock
    elif grep -q '^pan:1: assertion violated' out; then
        echo assertion
    elif grep -q 'errors: 0$' out && grep -q '^Full statespace search' out; then
        echo complete
    else
        echo broken
    fi
}

# check EXPECTED MODEL DEFINES...
check() {
    expected=$1
    model=$2
    shift 2
    defines=
    for name; do defines="$defines -D$name"; done

    rm -f pan* out
    # shellcheck disable=SC2086 # a list of options
    if spin -a $defines "$here/$model.pml" >out 2>&1 &&
        "$compiler" -O1 -w -DSAFETY -DMEMLIM=2000 -o pan pan.c >>out 2>&1; then
        timeout 120 ./pan -m100000 >out 2>&1
    fi
    got=$(verdict)
    states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' out)
    if [ "$got" = "$expected" ]; then
        passed=$((passed + 1))
        word=ok
    else
        failed=$((failed + 1))
        word=FAILED
    fi
    printf '%-6s %-4s %-42s %s (%s states)\n' "$word" "$model" "$*" "$got" "${states:-no}"
    [ "$word" = ok ] || { echo "       expected $expected; the end of the output:"; tail -n 12 out; }
}

check complete park IN_PLACE
check complete park ON_ITS_OWN
check deadlock park IN_PLACE MUTATION_NO_WAIT_FENCE
check deadlock park IN_PLACE MUTATION_NO_CANCEL_FENCE
check assertion park IN_PLACE MUTATION_PARKED_BEFORE_SAVED
check assertion park IN_PLACE MUTATION_READY_PLAIN_SET
check deadlock park IN_PLACE MUTATION_NO_NOTIFIED
check deadlock park IN_PLACE MUTATION_NOTIFIED_BY_LOAD

check complete idle OUTSIDE
check complete idle MIXED
check complete idle LOCAL
check complete idle PRODUCERS
check deadlock idle OUTSIDE MUTATION_NO_SLEEP_FENCE
check deadlock idle PRODUCERS MUTATION_NO_SLEEP_FENCE
check deadlock idle OUTSIDE MUTATION_NO_RECHECK
check deadlock idle LOCAL MUTATION_RECHECK_OWN_ONLY
check deadlock idle OUTSIDE MUTATION_NOTIFY_LOOKS_FIRST
check deadlock idle PRODUCERS MUTATION_NO_WAKE_FENCE
check deadlock idle LOCAL MUTATION_NO_SEARCHER_RULE
check deadlock idle LOCAL MUTATION_NO_SEARCHER_FENCE
check deadlock idle PRODUCERS MUTATION_NO_CLAIM_RECHECK
check deadlock idle PRODUCERS MUTATION_NO_CLAIM_RECHECK_FENCE
check deadlock idle LOCAL MUTATION_IDLE_BEFORE_STATE
check assertion idle PRODUCERS MUTATION_WAKE_WITHOUT_CLAIM

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
