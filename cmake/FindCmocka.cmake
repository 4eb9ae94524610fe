# cmocka (libcmocka-dev): Cmocka_FOUND and the target Cmocka::cmocka. Looked for by hand and not through the
# package's own file, since that one names absolute paths that are wrong in a sysroot.
find_path(CMOCKA_INCLUDE_DIR cmocka.h)
find_library(CMOCKA_LIBRARY cmocka)
mark_as_advanced(CMOCKA_INCLUDE_DIR CMOCKA_LIBRARY)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Cmocka REQUIRED_VARS CMOCKA_LIBRARY CMOCKA_INCLUDE_DIR)

if(Cmocka_FOUND AND NOT TARGET Cmocka::cmocka)
    add_library(Cmocka::cmocka UNKNOWN IMPORTED)
    set_target_properties(Cmocka::cmocka PROPERTIES
        IMPORTED_LOCATION ${CMOCKA_LIBRARY}
        INTERFACE_SYSTEM_INCLUDE_DIRECTORIES ${CMOCKA_INCLUDE_DIR})
endif()
