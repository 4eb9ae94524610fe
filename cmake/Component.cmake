# Optional parts of weft: libraries of their own, for which another package must be there.
#
#   weft_add_component(NAME tls PACKAGE OpenSSL VERSION 3.0 SOURCES io/tls/x.c… HEADERS weft/tls.h
#                      LINK OpenSSL::SSL OpenSSL::Crypto PKG_CONFIG openssl DESCRIPTION "TLS for weft's streams")
#
# The option WEFT_TLS (the name in capitals) is AUTO: built if the package is found; ON: an error if it is not; or OFF.
# If it is built, there are
#
#   weft_tls, weft_tls_static     the targets, also as weft::tls and weft::tls_static; libweft_tls.so and .a. They bring
#                                 weft::weft, weft::weft_static with them
#   find_package(weft COMPONENTS tls), weft-tls.pc, and the headers installed, which they are not otherwise
#   a test of the symbols that the library exports
#
# Tests and examples that need it say so in the lists at the top of tests/CMakeLists.txt and examples/CMakeLists.txt
# (NAME_component), and are built with weft_tls_static, or left out. The programs of docs/reference/NAME.md likewise.
#
# If not, nothing; ask with if(TARGET weft_tls). The sources use public headers of weft, and internal ones only if all
# in them is inline: libweft exports nothing else. The headers lie in include/ and are not part of <weft.h>.

function(weft_configure_component target component base)
    list(TRANSFORM component_SOURCES PREPEND ${PROJECT_SOURCE_DIR}/)
    target_sources(${target} PRIVATE ${component_SOURCES})
    target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR})
    target_compile_definitions(${target} PRIVATE _GNU_SOURCE=)
    target_link_libraries(${target} PUBLIC ${base} PRIVATE ${component_LINK})
    set_target_properties(${target} PROPERTIES OUTPUT_NAME weft_${component} C_VISIBILITY_PRESET hidden)
endfunction()

# Shared and static, installed in the export sets weft-NAME-shared and weft-NAME-static.
function(weft_make_component component)
    add_library(weft_${component} SHARED)
    add_library(weft_${component}_static STATIC)
    weft_configure_component(weft_${component} ${component} weft)
    weft_configure_component(weft_${component}_static ${component} weft_static)
    set_target_properties(weft_${component} PROPERTIES EXPORT_NAME ${component} VERSION ${PROJECT_VERSION}
        SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
    set_target_properties(weft_${component}_static PROPERTIES EXPORT_NAME ${component}_static)
    if(NOT CMAKE_POSITION_INDEPENDENT_CODE)
        target_compile_options(weft_${component}_static PRIVATE -fPIE)
    endif()
    # It finds libweft.so beside it, wherever both lie.
    set_target_properties(weft_${component} PROPERTIES INSTALL_RPATH "$ORIGIN")
    if(NOT WEFT_SANITIZE)
        target_link_options(weft_${component} PRIVATE LINKER:-z,defs)
    endif()
    add_library(weft::${component} ALIAS weft_${component})
    add_library(weft::${component}_static ALIAS weft_${component}_static)

    install(TARGETS weft_${component} EXPORT weft-${component}-shared
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT shared NAMELINK_COMPONENT development)
    install(TARGETS weft_${component}_static EXPORT weft-${component}-static
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT static)
    install(EXPORT weft-${component}-shared NAMESPACE weft:: FILE weft-${component}-shared.cmake
        DESTINATION ${weft_package_dir} COMPONENT development)
    install(EXPORT weft-${component}-static NAMESPACE weft:: FILE weft-${component}-static.cmake
        DESTINATION ${weft_package_dir} COMPONENT static)
    foreach(header IN LISTS component_HEADERS)
        cmake_path(GET header PARENT_PATH directory)
        install(FILES ${PROJECT_SOURCE_DIR}/include/${header} COMPONENT development
            DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/${directory})
    endforeach()

    set(component_NAME ${component})
    list(JOIN component_PKG_CONFIG ", " component_PKG_CONFIG)
    configure_file(cmake/weft-component.pc.in weft-${component}.pc @ONLY)
    install(FILES ${PROJECT_BINARY_DIR}/weft-${component}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig
        COMPONENT development)
endfunction()

# The headers are taken out of what is installed, and checked, as part of weft itself, also if it is not built.
function(weft_add_component)
    cmake_parse_arguments(PARSE_ARGV 0 component "" "NAME;PACKAGE;VERSION;DESCRIPTION"
        "SOURCES;HEADERS;LINK;PKG_CONFIG")
    string(TOUPPER WEFT_${component_NAME} option)
    set(${option} AUTO CACHE STRING "weft::${component_NAME}: AUTO (if ${component_PACKAGE} is there), ON, OFF")
    set_property(CACHE ${option} PROPERTY STRINGS AUTO ON OFF)
    set_property(GLOBAL APPEND PROPERTY WEFT_COMPONENT_HEADERS ${component_HEADERS})
    set_property(GLOBAL APPEND PROPERTY WEFT_COMPONENTS_KNOWN ${component_NAME})
    if(${option} STREQUAL "OFF")
        return()
    endif()

    find_package(${component_PACKAGE} ${component_VERSION} QUIET)
    if(${component_PACKAGE}_FOUND)
        weft_make_component(${component_NAME})
        set_property(GLOBAL APPEND PROPERTY WEFT_COMPONENTS ${component_NAME})
        set_property(GLOBAL PROPERTY WEFT_COMPONENT_HEADERS_${component_NAME} ${component_HEADERS})
        set_property(GLOBAL PROPERTY WEFT_COMPONENT_LINK_${component_NAME} ${component_LINK})
        set_property(GLOBAL APPEND_STRING PROPERTY WEFT_COMPONENT_PACKAGES
            "set(weft_${component_NAME}_package ${component_PACKAGE} ${component_VERSION})\n")
    elseif(${option} STREQUAL "AUTO")
        message(STATUS
            "weft::${component_NAME} is left out: ${component_PACKAGE} ${component_VERSION} not found")
    else()
        message(FATAL_ERROR "${option} is ON, but ${component_PACKAGE} ${component_VERSION} was not found")
    endif()
endfunction()
