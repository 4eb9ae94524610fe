# Concurrency Kit (libck-dev): ConcurrencyKit_FOUND and the target ConcurrencyKit::ck.
find_path(CK_INCLUDE_DIR ck_pr.h)
find_library(CK_LIBRARY ck)
mark_as_advanced(CK_INCLUDE_DIR CK_LIBRARY)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(ConcurrencyKit REQUIRED_VARS CK_LIBRARY CK_INCLUDE_DIR)

if(ConcurrencyKit_FOUND AND NOT TARGET ConcurrencyKit::ck)
    add_library(ConcurrencyKit::ck UNKNOWN IMPORTED)
    set_target_properties(ConcurrencyKit::ck PROPERTIES
        IMPORTED_LOCATION ${CK_LIBRARY}
        INTERFACE_SYSTEM_INCLUDE_DIRECTORIES ${CK_INCLUDE_DIR})
endif()
