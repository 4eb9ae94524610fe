#!/usr/bin/env bash
# The reference documentation against the headers and the library.
#
# usage: test_reference.sh SOURCE_DIR LIBRARY COMPILER [FLAG…]
#
# Every public function stands in the SYNOPSIS of exactly one page of docs/reference, as its header declares it. Pages
# have the sections they should have, links lead somewhere, manual pages come out without a warning. Every variable of
# the environment stands in the two lists of them, every test that docs/parity.md names exists. Every program of an
# EXAMPLE compiles, ends well with one worker and with four, and prints what the "Output:" after it says.
# WEFT_TEST_PAGE=mutex runs the programs of that page only. WEFT_TEST_COMPONENT_tls is what those of tls.md are linked
# with besides; they are left out if it is set and empty.
set -u

source_dir=${1:?usage: test_reference.sh SOURCE_DIR LIBRARY COMPILER [FLAG…]}
library=$2
shift 2
compile=("$@")
pages=$source_dir/docs/reference
tools=$source_dir/cmake
here=$(mktemp -d)
failures=0
trap 'rm -rf "$here"' EXIT

say() { printf '%s\n' "$*"; }

fail() {
    say "FAILED: $*"
    failures=$((failures + 1))
}

# The pages, without the list of them.
concepts=()
for page in "$pages"/*.md; do
    [ "$(basename "$page")" = README.md ] || concepts+=("$page")
done

say "== every public function, as its header declares it"
for header in "$source_dir"/include/weft/*.h; do
    awk -f "$tools/man.prototypes.awk" "$header"
done | LC_ALL=C sort >"$here/declared"
for page in "${concepts[@]}"; do
    awk -f "$tools/man.prototypes.awk" "$page"
done | grep -v $'\tstatic inline ' | LC_ALL=C sort >"$here/documented"
[ -s "$here/declared" ] || fail "no declarations found"
diff "$here/declared" "$here/documented" >"$here/diff" ||
    fail "headers (<) and pages (>) differ:"$'\n'"$(grep '^[<>]' "$here/diff")"
say "   $(wc -l <"$here/declared") functions"

# The structures that pages show have the members that they have in the header.
structures() {
    sed -E 's:/\*.*\*/::' "$@" | tr -s ' \n' ' ' | sed -E 's:/\*([^*]|\*+[^*/])*\*+/::g' |
        grep -oE 'typedef struct [a-z_]+ \{[^}]*\} [a-z_]+;' | sed -E 's/ +/ /g' | LC_ALL=C sort -u
}
structures "$source_dir"/include/weft/*.h >"$here/structures"
structures "${concepts[@]}" >"$here/shown_structures"
[ -s "$here/shown_structures" ] || fail "no structures found"
unknown=$(LC_ALL=C comm -13 "$here/structures" "$here/shown_structures")
[ -z "$unknown" ] || fail "structures that no header has like that:"$'\n'"$unknown"

# Constants and macros too; those that no program needs by name are left out.
grep -ohE '^ *(#define )?WEFT_[A-Z0-9_]+' "$source_dir"/include/weft/*.h | grep -oE 'WEFT_[A-Z0-9_]+' | LC_ALL=C sort -u |
    grep -vE '_H$|_DECLS$|_UNSET$|^WEFT__|^WEFT_CASE_KIND_|^WEFT_(API|NODISCARD)$' >"$here/constants"
grep -ohE 'WEFT_[A-Z0-9_]+' "${concepts[@]}" | LC_ALL=C sort -u >"$here/mentioned"
unmentioned=$(LC_ALL=C comm -23 "$here/constants" "$here/mentioned")
[ -z "$unmentioned" ] || fail "constants that no page mentions:"$'\n'"$unmentioned"

# And variables of the environment.
grep -oE '"WEFT_[A-Z_]+"' "$source_dir/runtime/config.c" | tr -d '"' | LC_ALL=C sort -u |
    grep -vE '_$|^WEFT_(UNBOUNDED|NEVER|OFF)$' >"$here/variables"
[ -s "$here/variables" ] || fail "no variables found"
while read -r variable; do
    for page in reference/config.md configuration.md; do
        grep -qw "$variable" "$source_dir/docs/$page" || fail "$page does not mention $variable"
    done
done <"$here/variables"

say "== the form of the pages"
for page in "${concepts[@]}"; do
    topic=$(basename "$page" .md)
    title=$(sed -n '1s/^# \(.*\)(3)$/\1/p' "$page")
    sections=$(awk '/^```/ { code = !code } !code && /^## / { sub(/^## /, ""); sub(/ENVIRONMENT/, ""); if ($0) print }' \
        "$page" | tr '\n' ' ')
    [ "$title" = "weft_$topic" ] || [ "$title:$topic" = weft:weft ] || fail "$topic: the title is \"$title\""
    [ "$sections" = "NAME SYNOPSIS DESCRIPTION RETURN VALUE ERRORS EXAMPLE SEE ALSO " ] ||
        fail "$topic: the sections are $sections"
    # NAME lists the page and its functions, so that apropos finds them.
    sed -n '5s/ - .*//p' "$page" | tr -d ' ' | tr ',' '\n' | LC_ALL=C sort >"$here/named"
    { awk -f "$tools/man.prototypes.awk" "$page" | grep -v $'\tstatic inline ' | cut -f1; } | LC_ALL=C sort -u >"$here/shown"
    unknown=$(LC_ALL=C comm -3 "$here/named" "$here/shown" | tr -d '\t' | grep -vx "$title")
    [ -z "$unknown" ] || fail "$topic: in only one of NAME and SYNOPSIS: $unknown"
done
for page in "$pages"/*.md "$source_dir"/docs/*.md; do
    # A fragment, or what lies elsewhere, is not looked at.
    for target in $(grep -o '](\([^)#]*\)' "$page" | sed 's/^](//' | grep -v '^[a-z]*:'); do
        [ -e "$(dirname "$page")/$target" ] || fail "$page: $target does not exist"
    done
done
for page in "${concepts[@]}"; do
    grep -q "($(basename "$page"))" "$pages/README.md" || fail "README.md does not name $(basename "$page")"
done

say "== the tests that docs/parity.md names"
# A line "file name" for each, or only "file"; from the last cell: file: name, name; file; example.NAME, example.NAME
awk '/^\| / && !/^\| (what|\|)/ {
        sub(/ \|$/, "")
        sub(/.* \| /, "")
        n = split($0, parts, /; /)
        for (i = 1; i <= n; i++) {
            file = ""
            if (match(parts[i], /^[a-z_]+\.(c|sh): /)) {
                file = substr(parts[i], 1, RLENGTH - 2)
                parts[i] = substr(parts[i], RLENGTH + 1)
            }
            m = split(parts[i], names, /, /)
            for (j = 1; j <= m; j++)
                print file == "" ? names[j] : file " " names[j]
        }
    }' "$source_dir/docs/parity.md" | grep -vx '—' | LC_ALL=C sort -u >"$here/tests"
while read -r file test; do
    case $file in
    example.*)
        [ -e "$source_dir/examples/${file#example.}.c" ] && [ -e "$source_dir/tests/expected/${file#example.}.txt" ] ||
            fail "parity.md: there is no $file"
        ;;
    *)
        if [ ! -e "$source_dir/tests/$file" ]; then
            fail "parity.md: there is no $file"
        elif [ -n "$test" ]; then
            grep -qE "(cmocka_unit_test[a-z_]*\(|\{\")$test[^a-z0-9_]" "$source_dir/tests/$file" ||
                fail "parity.md: $file has no test $test"
        fi
        ;;
    esac
done <"$here/tests"
say "   $(wc -l <"$here/tests") tests"

say "== manual pages"
if sh "$tools/man.sh" awk 0 "$here/man3" "${concepts[@]}"; then
    while IFS=$'\t' read -r function _; do
        [ -s "$here/man3/$function.3" ] || fail "no manual page for $function"
    done <"$here/declared"
    if command -v groff >/dev/null; then
        for page in "$here"/man3/*.3; do
            [ "$(head -c 3 "$page")" = .so ] || groff -man -Tutf8 -ww -z "$page" 2>&1
        done >"$here/groff"
        [ -s "$here/groff" ] && fail "groff complains:"$'\n'"$(cat "$here/groff")"
    fi
else
    fail "the manual pages could not be made"
fi

say "== examples"
# NAME.c and, where there is one, NAME.expected for every program.
for page in "${concepts[@]}"; do
    topic=$(basename "$page" .md)
    [ -z "${WEFT_TEST_PAGE-}" ] || [ "$topic" = "$WEFT_TEST_PAGE" ] || continue
    component=WEFT_TEST_COMPONENT_$topic
    if [ -n "${!component+set}" ] && [ -z "${!component}" ]; then
        say "   $topic: left out, as weft::$topic is not built"
        continue
    fi
    awk -v base="$here/$topic" '
        /^## / && !code { example = $0 == "## EXAMPLE"; output = 0 }
        !example { next }
        /^```/ && code { close(file); code = output = 0; next }
        /^```c$/ { number++; file = base "." number ".c"; printf "" > file; code = 1; next }
        /^Output:$/ { output = 1; next }
        /^```$/ && output && number { file = base "." number ".expected"; printf "" > file; code = 1; next }
        code { print > file }
        END { if (!number) exit 1 }' "$page" || fail "$topic: no program"
done
programs=()
for program in "$here"/*.c; do
    programs+=("${program%.c}")
done
compile_one() {
    local component
    component=$(basename "$1")
    component=WEFT_TEST_COMPONENT_${component%%.*}
    "${compile[@]}" -std=gnu11 -Wall -Wextra -Werror -I"$source_dir/include" -o "$1" "$1.c" ${!component-} "$library" -pthread \
        ${WEFT_TEST_LIBRARIES-} >"$1.log" 2>&1
}
# As many at a time as there are processors.
jobs_at_once=$(nproc 2>/dev/null || echo 1)
for program in "${programs[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$jobs_at_once" ]; do
        wait -n
    done
    compile_one "$program" &
done
wait
for program in "${programs[@]}"; do
    name=$(basename "$program")
    if [ ! -x "$program" ]; then
        fail "$name does not build:"$'\n'"$(grep -m 5 -E 'error|undefined|warning' "$program.log" || cat "$program.log")"
        continue
    fi
    for workers in 1 4; do
        WEFT_WORKERS=$workers timeout 20 "$program" >"$program.out" 2>"$program.err"
        status=$?
        if [ "$status" -ne 0 ]; then
            fail "$name, $workers workers: status $status"$'\n'"$(cat "$program.out" "$program.err")"
        elif [ -e "$program.expected" ] && ! diff "$program.expected" "$program.out" >"$program.diff"; then
            fail "$name, $workers workers: wanted (<), got (>)"$'\n'"$(cat "$program.diff")"
        fi
    done
done
say "   ${#programs[@]} programs"

if [ "$failures" -gt 0 ]; then
    say "$failures failed"
    exit 1
fi
say "all passed"
