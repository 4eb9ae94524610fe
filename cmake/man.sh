#!/bin/sh
# The manual pages: from docs/reference one page for each concept, and for each function a page that refers to it.
#
#   man.sh AWK VERSION OUTPUT_DIR PAGE.md...
#
# docs/reference/mutex.md becomes OUTPUT_DIR/weft_mutex.3, and weft_mutex_lock.3 there says ".so man3/weft_mutex.3".
set -eu

awk=$1 version=$2 output=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)

rm -rf "$output"
mkdir -p "$output"
for source in "$@"; do
    name=$(sed -n '1s/^# \([a-z0-9_]*\)(3)$/\1/p' "$source")
    [ -n "$name" ] || { echo "$source: the first line must be \"# name(3)\"" >&2; exit 1; }
    "$awk" -v version="$version" -f "$here/man.awk" "$source" >"$output/$name.3"
    "$awk" -f "$here/man.prototypes.awk" "$source" | cut -f1 | while read -r function; do
        [ "$function" = "$name" ] || echo ".so man3/$name.3" >"$output/$function.3"
    done
done
