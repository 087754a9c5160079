# Finds what the system's package manager installed (scripts/setup). Nothing is downloaded here.
# Names for LIBS: fmt nlohmann_json cli11 xxhash crypto curl tomlplusplus eigen libedit libxml2 mlx sqlite threads (also as sluice::fmt and so on),
# and liburing and simdjson where found (SLUICE_HAVE_SIMDJSON).

find_package(PkgConfig REQUIRED)
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(fmt 9 REQUIRED)
find_package(CLI11 2.1 REQUIRED)
find_package(Eigen3 REQUIRED NO_MODULE)
find_package(simdjson QUIET)
pkg_check_modules(libxxhash REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(libevent REQUIRED IMPORTED_TARGET libevent_core>=2.1 libevent_pthreads>=2.1)
find_package(LibXml2 REQUIRED)  # part of macOS
find_package(CURL 7.85 REQUIRED)  # part of macOS
find_package(SQLite3 3.37 REQUIRED)  # part of macOS
if(APPLE)  # Homebrew keeps it out of the way of the system's own
  list(APPEND CMAKE_PREFIX_PATH /opt/homebrew/opt/openssl@3 /usr/local/opt/openssl@3)
endif()
find_package(OpenSSL 3 REQUIRED COMPONENTS Crypto)
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
  pkg_check_modules(liburing IMPORTED_TARGET liburing)
endif()
find_path(SLUICE_EDITLINE_INCLUDE histedit.h REQUIRED DOC "libedit; part of macOS")
find_library(SLUICE_EDITLINE_LIBRARY edit REQUIRED)
find_path(SLUICE_TOMLPLUSPLUS_INCLUDE toml++/toml.h REQUIRED DOC "toml++, used header-only")

function(_sluice_dependency name target)
  add_library(sluice_dep_${name} INTERFACE)
  target_link_libraries(sluice_dep_${name} INTERFACE ${target})
  add_library(sluice::${name} ALIAS sluice_dep_${name})
endfunction()

_sluice_dependency(threads Threads::Threads)
_sluice_dependency(nlohmann_json nlohmann_json::nlohmann_json)
_sluice_dependency(cli11 CLI11::CLI11)
_sluice_dependency(xxhash PkgConfig::libxxhash)
_sluice_dependency(libevent PkgConfig::libevent)
# Headers alone: the library is loaded when it is needed (io/curl_library.h).
add_library(sluice_curl INTERFACE)
target_include_directories(sluice_curl SYSTEM INTERFACE ${CURL_INCLUDE_DIRS})
_sluice_dependency(curl sluice_curl)
_sluice_dependency(crypto OpenSSL::Crypto)
# Likewise (chat/tools/html_text.cpp).
add_library(sluice_libxml2 INTERFACE)
target_include_directories(sluice_libxml2 SYSTEM INTERFACE ${LIBXML2_INCLUDE_DIRS})
_sluice_dependency(libxml2 sluice_libxml2)
_sluice_dependency(eigen Eigen3::Eigen)
_sluice_dependency(sqlite SQLite::SQLite3)
add_library(sluice_libedit INTERFACE)
target_include_directories(sluice_libedit SYSTEM INTERFACE "${SLUICE_EDITLINE_INCLUDE}")
target_link_libraries(sluice_libedit INTERFACE "${SLUICE_EDITLINE_LIBRARY}")
_sluice_dependency(libedit sluice_libedit)
add_library(sluice_tomlplusplus INTERFACE)
target_include_directories(sluice_tomlplusplus SYSTEM INTERFACE "${SLUICE_TOMLPLUSPLUS_INCLUDE}")
_sluice_dependency(tomlplusplus sluice_tomlplusplus)
if(SLUICE_COMPILE_ONLY)
  # libc++ stands in for the Mac here, and Debian has no binary of fmt for it.
  _sluice_dependency(fmt fmt::fmt-header-only)
else()
  _sluice_dependency(fmt fmt::fmt)
endif()
if(TARGET PkgConfig::liburing AND NOT SLUICE_COMPILE_ONLY)
  _sluice_dependency(liburing PkgConfig::liburing)
endif()
if(TARGET simdjson::simdjson)
  set(SLUICE_HAVE_SIMDJSON ON)
  _sluice_dependency(simdjson simdjson::simdjson)
endif()

include(Mlx)

if(SLUICE_BUILD_TESTS)
  find_package(GTest REQUIRED)
endif()
if(SLUICE_BUILD_BENCH)
  find_package(benchmark REQUIRED)
endif()

# Python with the reference packages of tests/requirements.txt; tests that need it skip without.
find_program(SLUICE_PYTHON3 NAMES python3 DOC "Plain Python 3, standard library only")
if(EXISTS "${PROJECT_SOURCE_DIR}/.venv/sluice-test-stamp")
  set(SLUICE_PYTHON "${PROJECT_SOURCE_DIR}/.venv/bin/python")
endif()

# Real model files, too large for the repository; tests that need them skip without.
if(DEFINED ENV{SLUICE_REAL_INPUTS})
  set(SLUICE_REAL_INPUTS "$ENV{SLUICE_REAL_INPUTS}")
elseif(IS_DIRECTORY "${PROJECT_SOURCE_DIR}/../shared/data")
  get_filename_component(SLUICE_REAL_INPUTS "${PROJECT_SOURCE_DIR}/../shared/data" REALPATH)
endif()
