#!/usr/bin/env bash
# Install what building, testing or benchmarking weft needs and this machine lacks.
#
# Whether something is there is asked of the machine (is there such a command, such a header?) and not of the
# package manager; only if something is missing is the network used.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage()
{
    cat <<'USAGE'
usage: cmake/install-deps.sh [--tests] [--bench] [--clang] [--clang-tsan] [--fuzz] [--aarch64]
                             [--models] [--check]

Makes sure that a compiler, CMake 3.25, Ninja, pkg-config, Concurrency Kit, http-parser and OpenSSL are there, and

  --tests       cmocka, a C++ compiler, valgrind's header, libunwind, curl, libcurl, openssl; for the example
                servers sqlite and jansson; as their peers wrk, nginx, socat, python3
  --bench       wrk, nginx, gnuplot
  --clang       clang
  --clang-tsan  clang and its sanitizer libraries
  --fuzz        clang, its sanitizer libraries and libFuzzer
  --aarch64     a cross compiler, qemu, and AArch64 libraries (unpacked into build/sysroot-aarch64)
  --models      spin
  --check       install nothing, only say what is missing (status 1 if something is)

Debian and Ubuntu: installed with apt-get, through sudo if you are not root. Elsewhere: says what is missing.
USAGE
}

check_only=0
groups=(core)
for argument in "$@"; do
    case $argument in
    --tests | --bench | --clang | --clang-tsan | --fuzz | --aarch64 | --models) groups+=("${argument#--}") ;;
    --check) check_only=1 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
done

# Servers are often installed outside an ordinary user's path.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

have_command()
{
    command -v "$1" >/dev/null 2>&1
}

have_header()
{
    have_command cc && echo "#include <$1>" | cc -E -x c - >/dev/null 2>&1
}

have_clang()
{
    local name
    for name in clang clang-{14..21}; do
        if have_command "$name"; then
            echo "$name"
            return 0
        fi
    done
    return 1
}

# Are the libraries of clang's -fsanitize=$1 there?
have_clang_library()
{
    local clang function=main
    clang=$(have_clang) || return 1
    [[ $1 != fuzzer* ]] || function=LLVMFuzzerTestOneInput
    echo "int $function(void) { return 0; }" | "$clang" "-fsanitize=$1" -x c -o /dev/null - 2>/dev/null
}

lacks_clang_library()
{
    case " ${groups[*]} " in *" clang-tsan "*) have_clang_library thread || return 0 ;; esac
    case " ${groups[*]} " in *" fuzz "*) have_clang_library fuzzer,address || return 0 ;; esac
    return 1
}

have_cmake()
{
    local version
    have_command cmake || return 1
    version=$(cmake --version | sed -n '1s/[^0-9]*\([0-9.]*\).*/\1/p')
    [ "$(printf '3.25\n%s\n' "$version" | sort -V | head -n 1)" = 3.25 ]
}

have_cross_compiler()
{
    have_command aarch64-linux-gnu-gcc &&
        echo 'int main(void) { return 0; }' | aarch64-linux-gnu-gcc -x c -o /dev/null - 2>/dev/null
}

have_qemu()
{
    have_command qemu-aarch64 || have_command qemu-aarch64-static
}

have_http_parser()
{
    have_header http_parser.h
}

# One line a need: group, Debian package, and how to ask whether it is met.
needs()
{
    cat <<'NEEDS'
core        gcc                     have_command gcc
core        libc6-dev               have_header stdio.h
core        binutils                have_command nm
core        make                    have_command make
core        cmake                   have_cmake
core        ninja-build             have_command ninja
core        pkg-config              have_command pkg-config
core        libck-dev               have_header ck_pr.h
core        libhttp-parser-dev      have_http_parser
core        libssl-dev              have_header openssl/ssl.h
tests       libcmocka-dev           have_cmocka
tests       g++                     have_command g++
tests       valgrind                have_header valgrind/valgrind.h
tests       libunwind-dev           have_header libunwind.h
tests       curl                    have_command curl
tests       libcurl4-openssl-dev    have_header curl/curl.h
tests       openssl                 have_command openssl
tests       libsqlite3-dev          have_header sqlite3.h
tests       libjansson-dev          have_header jansson.h
tests       python3                 have_command python3
tests       wrk                     have_command wrk
tests       nginx-light             have_command nginx
tests       socat                   have_command socat
bench       wrk                     have_command wrk
bench       nginx-light             have_command nginx
bench       gnuplot-nox             have_command gnuplot
clang       clang                   have_clang
clang-tsan  clang                   have_clang
fuzz        clang                   have_clang
aarch64     gcc-aarch64-linux-gnu   have_cross_compiler
aarch64     libc6-dev-arm64-cross   have_cross_compiler
aarch64     qemu-user               have_qemu
models      spin                    have_command spin
NEEDS
}

have_cmocka()
{
    # cmocka.h wants these to be included first.
    have_command cc &&
        printf '#include <%s>\n' stdarg.h stddef.h setjmp.h stdint.h cmocka.h | cc -E -x c - >/dev/null 2>&1
}

missing_packages()
{
    local group package probe
    needs | while read -r group package probe; do
        if [[ " ${groups[*]} " == *" $group "* ]] && ! $probe >/dev/null; then
            echo "$package"
        fi
    done | sort -u
}

is_debian()
{
    have_command apt-get && [ -e /etc/debian_version ]
}

as_root()
{
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif have_command sudo; then
        sudo "$@"
    else
        echo "install-deps: not root, and sudo is not installed; as root: $*" >&2
        return 1
    fi
}

apt_updated=0
install_packages()
{
    echo "installing: $*"
    if [ "$apt_updated" = 0 ]; then
        as_root apt-get -qq update ||
            echo "install-deps: apt-get update failed, going on with the lists that are there" >&2
        apt_updated=1
    fi
    # RUNLEVEL=1: a server that is installed for the benchmarks is not started by its package.
    as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 RUNLEVEL=1 \
        apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 install "$@" >/dev/null
}

# The sanitizer libraries of clang have its version in their name.
clang_runtime_package()
{
    local clang
    clang=$(have_clang) || return 0
    echo "libclang-rt-$("$clang" -dumpversion | cut -d. -f1)-dev"
}

sysroot=build/sysroot-aarch64
sysroot_packages=(libcmocka-dev libck-dev libhttp-parser-dev)

have_sysroot()
{
    [ -e $sysroot/usr/include/cmocka.h ] && [ -e $sysroot/usr/include/ck_pr.h ] &&
        [ -e $sysroot/usr/include/http_parser.h ]
}

# Some of these packages cannot be installed for two architectures at once (libck-dev), so they are unpacked and
# not installed: apt is run with package lists of its own, as if on an AArch64 machine, and the system's package
# database is neither read nor changed.
make_sysroot()
{
    local work libraries
    work=$(mktemp -d)
    # shellcheck disable=SC2064  # the value of now
    trap "rm -rf '$work'" RETURN
    mkdir -p "$work"/{lists/partial,cache/archives/partial,packages,root}
    local apt=(-qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Acquire::Languages=none
        -o Dir::State::lists="$work/lists" -o Dir::State::status=/dev/null -o Dir::Cache="$work/cache"
        -o APT::Sandbox::User="$(id -un)" -o APT::Update::Post-Invoke= -o APT::Update::Post-Invoke-Success=)

    echo "unpacking AArch64 libraries into $sysroot"
    # Sources that are restricted to another architecture, or foreign to Debian, may fail without harm.
    apt-get "${apt[@]}" update || true
    # Besides the headers, the shared libraries that they stand for.
    libraries=$(apt-cache "${apt[@]}" depends -i "${sysroot_packages[@]}" |
        sed -n 's/.*Depends: \(lib\(cmocka\|ck\|http-parser\)[0-9.]*[a-z0-9]*\)$/\1/p' | sort -u)
    # shellcheck disable=SC2086  # words are wanted
    (cd "$work/packages" && apt-get "${apt[@]}" download "${sysroot_packages[@]}" $libraries)
    for package in "$work"/packages/*.deb; do
        dpkg-deb -x "$package" "$work/root"
    done
    rm -rf $sysroot
    mkdir -p "$(dirname $sysroot)"
    mv "$work/root" $sysroot
}

missing=$(missing_packages)
if have_clang >/dev/null && lacks_clang_library; then
    missing+=" $(clang_runtime_package)"
fi
missing=$(echo $missing)
need_sysroot=0
if [[ " ${groups[*]} " == *" aarch64 "* ]] && ! have_sysroot; then
    need_sysroot=1
fi

if [ -z "$missing" ] && [ $need_sysroot = 0 ]; then
    exit 0
fi
if [ $check_only = 1 ] || ! is_debian; then
    [ -z "$missing" ] || echo "missing (names of Debian's packages): $missing" >&2
    [ $need_sysroot = 0 ] || echo "missing: $sysroot with the AArch64 packages ${sysroot_packages[*]}" >&2
    [ $check_only = 1 ] || echo "this is not Debian or Ubuntu: please install them by hand" >&2
    exit 1
fi

if [ -n "$missing" ]; then
    # shellcheck disable=SC2086  # words are wanted
    install_packages $missing
fi
if lacks_clang_library; then
    install_packages "$(clang_runtime_package)"
fi
if [ $need_sysroot = 1 ]; then
    make_sysroot
fi

still=$(echo $(missing_packages))
if [ -n "$still" ]; then
    echo "install-deps: still missing or too old after the installation: $still" >&2
    exit 1
fi
