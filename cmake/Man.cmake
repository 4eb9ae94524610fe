# The manual pages: made of docs/reference at build time by awk and a shell, installed to share/man/man3. Where there is
# no awk, the library is built and installed without them.
option(WEFT_BUILD_MAN "Build and install the manual pages" ${PROJECT_IS_TOP_LEVEL})
find_program(WEFT_AWK NAMES awk mawk gawk)
mark_as_advanced(WEFT_AWK)

if(WEFT_BUILD_MAN AND NOT WEFT_AWK)
    message(STATUS "weft: no manual pages: awk not found")
elseif(WEFT_BUILD_MAN)
    file(GLOB weft_reference CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/docs/reference/*.md)
    list(REMOVE_ITEM weft_reference ${PROJECT_SOURCE_DIR}/docs/reference/README.md)
    set(weft_man_tools ${CMAKE_CURRENT_LIST_DIR}/man.sh ${CMAKE_CURRENT_LIST_DIR}/man.awk
        ${CMAKE_CURRENT_LIST_DIR}/man.prototypes.awk)
    # There from the start, so that an installation of a build in parts does not fail for want of it.
    file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/man3)

    # A stamp stands for the pages: how many link pages there are is known only once the sources have been read.
    add_custom_command(OUTPUT ${PROJECT_BINARY_DIR}/man3.stamp
        COMMAND sh ${CMAKE_CURRENT_LIST_DIR}/man.sh ${WEFT_AWK} ${PROJECT_VERSION} ${PROJECT_BINARY_DIR}/man3
            ${weft_reference}
        COMMAND ${CMAKE_COMMAND} -E touch ${PROJECT_BINARY_DIR}/man3.stamp
        DEPENDS ${weft_reference} ${weft_man_tools}
        COMMENT "Manual pages"
        VERBATIM)
    add_custom_target(weft_man ALL DEPENDS ${PROJECT_BINARY_DIR}/man3.stamp)
    install(DIRECTORY ${PROJECT_BINARY_DIR}/man3 DESTINATION ${CMAKE_INSTALL_MANDIR} COMPONENT development)
endif()
