#!/bin/sh
# Install a build into a fresh prefix, build the program next to this script against it, outside the tree, and
# run it.
#
#   run.sh cmake|cmake-static|pkg-config|pkg-config-static BUILD_DIR CC CMAKE
set -eu

mode=$1 build=$2 cc=$3 cmake=$4
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/weft-consumer.XXXXXX")
trap 'rm -rf "$work"' EXIT

"$cmake" --install "$build" --prefix "$work/installed" >/dev/null
# An installed tree does not depend on where it was installed.
mv "$work/installed" "$work/moved"
prefix=$work/moved
mkdir "$work/source"
cp "$here/server.c" "$here/tls.c" "$here/CMakeLists.txt" "$work/source"
cd "$work/source"

library_dir=$(dirname "$(find "$prefix" -name libweft.so | head -n 1)")
[ -f "$library_dir/pkgconfig/weft.pc" ] || { echo "weft.pc was not installed"; exit 1; }

with_cmake()
{
    "$cmake" -S . -B "$work/build" -DCMAKE_C_COMPILER="$cc" -DCMAKE_PREFIX_PATH="$prefix" -DWEFT_TARGET="$1" \
        >"$work/log" 2>&1 && "$cmake" --build "$work/build" >>"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    server=$work/build/server
    tls=$work/build/tls
}

with_pkg_config()
{
    PKG_CONFIG_PATH=$library_dir/pkgconfig
    export PKG_CONFIG_PATH
    flags=$(pkg-config --cflags --libs "$@" weft)
    echo "pkg-config $*: $flags"
    # shellcheck disable=SC2086  # words are wanted
    "$cc" -std=gnu11 -Wall -Wextra -Werror -O2 -o server server.c $link $flags
    server=$work/source/server
    # (Not statically all through: a static OpenSSL warns of what it loads at run time.)
    if [ -f "$library_dir/pkgconfig/weft-tls.pc" ] && [ -z "$link" ]; then
        # shellcheck disable=SC2046  # words are wanted
        "$cc" -std=gnu11 -Wall -Wextra -Werror -O2 -o tls tls.c $(pkg-config --cflags --libs weft-tls)
        tls=$work/source/tls
    fi
}

link= tls=
case $mode in
cmake) with_cmake weft::weft ;;
cmake-static) with_cmake weft::weft_static ;;
pkg-config) with_pkg_config ;;
pkg-config-static) link=-static; with_pkg_config --static ;;
*) echo "unknown mode $mode"; exit 2 ;;
esac

if [ "${mode%-static}" = "$mode" ]; then
    LD_LIBRARY_PATH=$library_dir
    export LD_LIBRARY_PATH
    # A match shows that the shared library is really in use.
    ldd "$server" | grep -q "$library_dir/libweft.so"
elif ldd "$server" 2>/dev/null | grep -q libweft; then
    echo "$server needs libweft.so, although it is linked statically"
    exit 1
fi

output=$("$server")
echo "$output"
case $output in
ok:*) ;;
*) exit 1 ;;
esac

# It must be there if the component was installed.
if [ -f "$library_dir/pkgconfig/weft-tls.pc" ] && [ -n "$tls" ]; then
    "$tls"
fi
