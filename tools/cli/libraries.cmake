# SPDX-License-Identifier: BSD-2-Clause
# What the command needs; fuzz/ builds it as well.
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson>=2.8)

pkg_check_modules(NCURSES REQUIRED IMPORTED_TARGET ncursesw)
pkg_check_modules(MICROHTTPD REQUIRED IMPORTED_TARGET libmicrohttpd>=0.9.71)

# Its headers only: map --png loads the library itself.
pkg_check_modules(CAIRO REQUIRED cairo)
set(SHDICT_CLI_LIBRARIES PkgConfig::JANSSON PkgConfig::MICROHTTPD
    PkgConfig::NCURSES m ${CMAKE_DL_LIBS})
set(SHDICT_CLI_INCLUDES ${CAIRO_INCLUDE_DIRS})
