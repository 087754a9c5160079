# Finds what the system's package manager installed (scripts/setup). Nothing is downloaded here.
# Modules name these targets in LIBS or PUBLIC_LIBS:
#   Threads::Threads  nlohmann_json::nlohmann_json  CLI11::CLI11
#   sluice::fmt  sluice::xxhash  sluice::simdjson (only if found: SLUICE_HAVE_SIMDJSON)

find_package(PkgConfig REQUIRED)
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(fmt 9 REQUIRED)
find_package(CLI11 2.1 REQUIRED)
pkg_check_modules(libxxhash REQUIRED IMPORTED_TARGET libxxhash)

# The Mac stand-in compiles against libc++, for which Debian has no binary of fmt.
add_library(sluice_dep_fmt INTERFACE)
if(SLUICE_COMPILE_ONLY)
  target_link_libraries(sluice_dep_fmt INTERFACE fmt::fmt-header-only)
else()
  target_link_libraries(sluice_dep_fmt INTERFACE fmt::fmt)
endif()
add_library(sluice::fmt ALIAS sluice_dep_fmt)

add_library(sluice_dep_xxhash INTERFACE)
target_link_libraries(sluice_dep_xxhash INTERFACE PkgConfig::libxxhash)
add_library(sluice::xxhash ALIAS sluice_dep_xxhash)

find_package(simdjson QUIET)
if(TARGET simdjson::simdjson)
  set(SLUICE_HAVE_SIMDJSON ON)
  add_library(sluice_dep_simdjson INTERFACE)
  target_link_libraries(sluice_dep_simdjson INTERFACE simdjson::simdjson)
  add_library(sluice::simdjson ALIAS sluice_dep_simdjson)
endif()

if(SLUICE_BUILD_TESTS)
  find_package(GTest REQUIRED)
endif()
if(SLUICE_BUILD_BENCH)
  find_package(benchmark REQUIRED)
endif()

# Python with the reference packages of tests/requirements.txt; tests that need it skip without.
if(EXISTS "${PROJECT_SOURCE_DIR}/.venv/bin/python")
  set(SLUICE_PYTHON "${PROJECT_SOURCE_DIR}/.venv/bin/python")
endif()
find_program(SLUICE_PYTHON3 NAMES python3 DOC "Plain Python 3, standard library only")

# Real model files, too large for the repository; tests that need them skip without.
if(DEFINED ENV{SLUICE_REAL_INPUTS})
  set(SLUICE_REAL_INPUTS "$ENV{SLUICE_REAL_INPUTS}")
elseif(IS_DIRECTORY "${PROJECT_SOURCE_DIR}/../shared/data")
  get_filename_component(SLUICE_REAL_INPUTS "${PROJECT_SOURCE_DIR}/../shared/data" REALPATH)
endif()
