# Toolchain file: cross-compile for AArch64 with Debian's cross compiler and run the results under qemu.
# cmake/install-deps.sh --aarch64 installs both, and unpacks the libraries that the tests and examples link
# into build/sysroot-aarch64 (WEFT_AARCH64_SYSROOT).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)

set(WEFT_AARCH64_SYSROOT ${CMAKE_CURRENT_LIST_DIR}/../build/sysroot-aarch64 CACHE PATH
    "Unpacked AArch64 packages: cmocka, Concurrency Kit, http-parser")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES WEFT_AARCH64_SYSROOT)

set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
find_program(WEFT_AARCH64_CXX aarch64-linux-gnu-g++)
if(WEFT_AARCH64_CXX)
    set(CMAKE_CXX_COMPILER ${WEFT_AARCH64_CXX})
endif()

set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH ${WEFT_AARCH64_SYSROOT} /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)

find_program(WEFT_QEMU_AARCH64 NAMES qemu-aarch64 qemu-aarch64-static)
if(WEFT_QEMU_AARCH64)
    set(CMAKE_CROSSCOMPILING_EMULATOR ${WEFT_QEMU_AARCH64} -L /usr/aarch64-linux-gnu)
endif()
