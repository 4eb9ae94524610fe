#!/bin/sh
# A shared library exports what its public headers declare, and nothing else.
#
#   check-symbols.sh NM LIBRARY HEADER_OR_DIRECTORY...
set -eu

nm=$1 library=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$nm" -D --defined-only "$library" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | LC_ALL=C sort -u \
    >"$work/exported"

# A declaration is what stands between WEFT_API and the next semicolon; its name is the first word before a
# parenthesis (the name itself may stand in parentheses, which keeps a macro from being expanded).
find "$@" -name '*.h' -exec cat {} + | tr '\n' ' ' | sed 's/;/;\n/g' |
    sed -n 's/.*WEFT_API \(.*\);$/\1/p' | sed -n 's/^[^(]*[ *(]\(weft_[a-z0-9_]*\))\{0,1\}(.*/\1/p' |
    LC_ALL=C sort -u >"$work/declared"

[ -s "$work/declared" ] || { echo "no declarations found in $*"; exit 1; }
foreign=$(LC_ALL=C comm -23 "$work/exported" "$work/declared")
missing=$(LC_ALL=C comm -13 "$work/exported" "$work/declared")
[ -z "$foreign" ] || printf 'exported, but not in a public header:\n%s\n' "$foreign"
[ -z "$missing" ] || printf 'in a public header, but not exported:\n%s\n' "$missing"
[ -z "$foreign$missing" ] || exit 1
echo "$(wc -l <"$work/exported") symbols exported, each declared"
