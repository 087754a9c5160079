# Functions with which modules, tests, fuzz targets and benchmarks are declared.
#
#   sluice_module(NAME io FLOOR core SOURCES a.cpp DEPENDS base numerics
#                 [LIBS sluice::xxhash] [PUBLIC_LIBS sluice::fmt])
#     A static library sluice_io, alias sluice::io; includes read "io/a.h". Without SOURCES it is
#     header-only. DEPENDS must agree with the table in docs/architecture.md (tests/tidy).
#     LIBS are external, see cmake/Dependencies.cmake; PUBLIC_LIBS those that a header includes.
#
#   sluice_program(NAME sluice SOURCES main.cpp DEPENDS cli [LIBS ...])
#
#   sluice_test(NAME gguf_test SOURCES gguf_test.cpp DEPENDS io [LIBS ...] [LABELS unit threads]
#               [TIMEOUT seconds] [SERIAL])
#     A GoogleTest program in tests/<module>, one CTest test named <module>_gguf_test. Labels:
#     unit (default) golden e2e slow, plus threads for what must also pass under tsan,
#     and mlx for what the mlx preset builds and runs.
#
#   sluice_python_test(NAME x SCRIPT x.py [ARGS ...] [REFERENCES] [LABELS ...] [TIMEOUT s] [SERIAL])
#     A Python script; exit code 77 means skipped. REFERENCES: runs in .venv (numpy, mlx ...).
#
#   sluice_reads_from_disk(serve_streamed ...)
#     These tests' servers get a share of their model's bytes as memory (tests/e2e/server.py), and the
#     demo model is the larger copy that tests/e2e/wide_demo.py makes.
#
#   sluice_fuzz(NAME gguf_fuzz SOURCES gguf_fuzz.cpp DEPENDS io [CORPUS folder] [DICTIONARY file])
#     A LLVMFuzzerTestOneInput in fuzz/<module>. libFuzzer in the fuzz preset; elsewhere a plain
#     program that runs the corpus once and then mutations of it, for seconds under a sanitizer.
#     Registered with CTest.
#
#   sluice_bench(NAME read_bench SOURCES read_bench.cpp DEPENDS io)   Google Benchmark.
#
# Tests see the environment SLUICE_SOURCE_DIR, SLUICE_BINARY (the sluice program, if built),
# SLUICE_DEMO_MODEL (a GGUF file, there after scripts/demo_model), SLUICE_PYTHON (with reference
# packages, if set up), SLUICE_REAL_INPUTS (if found). They skip with a message without these.

include_guard()

configure_file("${PROJECT_SOURCE_DIR}/cmake/sluice_version.h.in"
               "${PROJECT_BINARY_DIR}/generated/sluice_version.h" @ONLY)

set(SLUICE_WIDE_DEMO "${PROJECT_BINARY_DIR}/demo-wide.gguf")

# Always there, so that presets may name them before the first member exists.
foreach(group IN ITEMS sluice-tests sluice-threads-tests sluice-mlx-tests sluice-fuzzers sluice-benches)
  add_custom_target(${group})
endforeach()

# Headers parsed once for all modules, and once for all tests: a library's code is position
# independent in another way than a program's.
function(_sluice_precompiled name header)
  set(source "${PROJECT_BINARY_DIR}/generated/${name}.cpp")
  file(GENERATE OUTPUT "${source}" CONTENT "int main() {}\n")
  if(name MATCHES "_test$")
    add_executable(${name} "${source}")
  else()
    add_library(${name} OBJECT "${source}")
  endif()
  target_precompile_headers(${name} PRIVATE "${PROJECT_SOURCE_DIR}/cmake/${header}")
  target_link_libraries(${name} PRIVATE sluice_dep_fmt sluice_dep_nlohmann_json ${ARGN})
endfunction()
if(NOT CMAKE_DISABLE_PRECOMPILE_HEADERS)
  _sluice_precompiled(sluice_precompiled precompiled.h)
  if(SLUICE_BUILD_TESTS)
    _sluice_precompiled(sluice_precompiled_test precompiled_test.h GTest::gmock)
  endif()
endif()

# A source with options of its own (an instruction set) must not see the shared inline functions.
function(_sluice_use_precompiled target from)
  if(CMAKE_DISABLE_PRECOMPILE_HEADERS)
    return()
  endif()
  foreach(source IN LISTS ARGN)
    get_source_file_property(options "${source}" COMPILE_OPTIONS)
    if(options)
      set_source_files_properties("${source}" PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
    endif()
  endforeach()
  target_precompile_headers(${target} REUSE_FROM ${from})
endfunction()

# Adds a directory only if it has a CMakeLists.txt, so that floors can be built up one by one.
function(sluice_add_directory directory)
  # A directory that appears later must make CMake run again.
  file(GLOB lists CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/${directory}/CMakeLists.txt")
  if(lists)
    add_subdirectory("${directory}")
  endif()
endfunction()

# Remembers who depends on what, links in a form that tolerates later definition.
function(_sluice_link target scope)
  foreach(name IN LISTS ARGN)
    target_link_libraries(${target} ${scope} sluice_${name})
    set_property(GLOBAL APPEND PROPERTY SLUICE_EDGES "${target}>${name}")
  endforeach()
endfunction()

# External libraries by the names of cmake/Dependencies.cmake; a::b and plain targets pass through.
function(_sluice_link_libs target scope)
  foreach(name IN LISTS ARGN)
    if(TARGET sluice_dep_${name})
      target_link_libraries(${target} ${scope} sluice_dep_${name})
    elseif(TARGET ${name})
      target_link_libraries(${target} ${scope} ${name})
    else()
      message(FATAL_ERROR "${target}: no library ${name}; see cmake/Dependencies.cmake")
    endif()
  endforeach()
endfunction()

function(sluice_check_depends)
  get_property(edges GLOBAL PROPERTY SLUICE_EDGES)
  foreach(edge IN LISTS edges)
    string(REPLACE ">" ";" pair "${edge}")
    list(GET pair 0 from)
    list(GET pair 1 to)
    if(NOT TARGET sluice_${to})
      message(FATAL_ERROR "${from} depends on module ${to}, which does not exist; it will not link")
    endif()
  endforeach()
endfunction()

function(sluice_module)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME;FLOOR" "SOURCES;DEPENDS;LIBS;PUBLIC_LIBS")
  _sluice_require_all_parsed()
  set(target sluice_${arg_NAME})
  set(floor_dir "${PROJECT_SOURCE_DIR}/src/${arg_FLOOR}")
  if(NOT CMAKE_CURRENT_SOURCE_DIR STREQUAL "${floor_dir}/${arg_NAME}")
    message(FATAL_ERROR "module ${arg_NAME} of floor ${arg_FLOOR} is not in its own folder")
  endif()
  if(arg_SOURCES)
    add_library(${target} STATIC ${arg_SOURCES})
    set(scope PUBLIC)
    target_include_directories(${target} PRIVATE "${PROJECT_BINARY_DIR}/generated")
    _sluice_link_libs(${target} PRIVATE ${arg_LIBS})
    _sluice_use_precompiled(${target} sluice_precompiled ${arg_SOURCES})
  else()
    add_library(${target} INTERFACE)
    set(scope INTERFACE)
  endif()
  add_library(sluice::${arg_NAME} ALIAS ${target})
  target_include_directories(${target} ${scope} "${floor_dir}")
  _sluice_link_libs(${target} ${scope} ${arg_PUBLIC_LIBS})
  _sluice_link(${target} ${scope} ${arg_DEPENDS})
endfunction()

function(sluice_program)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME" "SOURCES;DEPENDS;LIBS")
  _sluice_require_all_parsed()
  if(SLUICE_COMPILE_ONLY)
    add_library(${arg_NAME} OBJECT ${arg_SOURCES})
  else()
    add_executable(${arg_NAME} ${arg_SOURCES})
  endif()
  target_include_directories(${arg_NAME} PRIVATE "${PROJECT_BINARY_DIR}/generated")
  _sluice_link_libs(${arg_NAME} PRIVATE ${arg_LIBS})
  _sluice_link(${arg_NAME} PRIVATE ${arg_DEPENDS})
endfunction()

function(sluice_test)
  cmake_parse_arguments(PARSE_ARGV 0 arg "SERIAL" "NAME;TIMEOUT" "SOURCES;DEPENDS;LIBS;LABELS")
  _sluice_require_all_parsed()
  _sluice_prefixed(name "${arg_NAME}")
  add_executable(${name} ${arg_SOURCES})
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}/tests")
  target_link_libraries(${name} PRIVATE GTest::gmock_main)
  _sluice_use_precompiled(${name} sluice_precompiled_test ${arg_SOURCES})
  _sluice_link_libs(${name} PRIVATE ${arg_LIBS})
  if(TARGET sluice_test_support)
    target_link_libraries(${name} PRIVATE sluice_test_support)
  endif()
  _sluice_link(${name} PRIVATE ${arg_DEPENDS})
  add_test(NAME ${name} COMMAND ${name})
  _sluice_test_properties(${name} "${arg_LABELS}" "${arg_TIMEOUT}" "${arg_SERIAL}")
  add_dependencies(sluice-tests ${name})
  if("threads" IN_LIST arg_LABELS)
    add_dependencies(sluice-threads-tests ${name})
  endif()
  if("mlx" IN_LIST arg_LABELS)
    add_dependencies(sluice-mlx-tests ${name})
  endif()
endfunction()

function(sluice_python_test)
  cmake_parse_arguments(PARSE_ARGV 0 arg "SERIAL;REFERENCES" "NAME;SCRIPT;TIMEOUT" "ARGS;LABELS")
  _sluice_require_all_parsed()
  _sluice_prefixed(name "${arg_NAME}")
  if(arg_REFERENCES)
    set(python "${SLUICE_PYTHON}")
  else()
    set(python "${SLUICE_PYTHON3}")
  endif()
  if(NOT python)
    # Reported by CTest as skipped, not silently absent.
    add_test(NAME ${name} COMMAND ${CMAKE_COMMAND} -E echo
             "SLUICE_SKIP: no Python for this test; run scripts/setup test")
    set_tests_properties(${name} PROPERTIES SKIP_REGULAR_EXPRESSION "SLUICE_SKIP")
  else()
    get_filename_component(script "${arg_SCRIPT}" ABSOLUTE)
    add_test(NAME ${name} COMMAND "${python}" "${script}" ${arg_ARGS})
  endif()
  _sluice_test_properties(${name} "${arg_LABELS}" "${arg_TIMEOUT}" "${arg_SERIAL}")
endfunction()

function(sluice_reads_from_disk)
  foreach(arg IN LISTS ARGN)
    _sluice_prefixed(name "${arg}")
    set_property(TEST ${name} APPEND PROPERTY ENVIRONMENT "SLUICE_SERVED_SHARE=0.4"
                 "SLUICE_DEMO_MODEL=${SLUICE_WIDE_DEMO}")
    set_property(TEST ${name} APPEND PROPERTY FIXTURES_REQUIRED wide_demo)
  endforeach()
endfunction()

function(sluice_fuzz)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME;CORPUS;DICTIONARY" "SOURCES;DEPENDS;LIBS")
  _sluice_require_all_parsed()
  _sluice_prefixed(name "${arg_NAME}")
  if(SLUICE_LIBFUZZER)
    add_executable(${name} ${arg_SOURCES})
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  else()
    add_executable(${name} ${arg_SOURCES} "${PROJECT_SOURCE_DIR}/fuzz/corpus_main.cpp")
  endif()
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}/fuzz")
  _sluice_link_libs(${name} PRIVATE ${arg_LIBS})
  _sluice_link(${name} PRIVATE ${arg_DEPENDS})
  set(corpus)
  if(arg_CORPUS)
    get_filename_component(corpus "${arg_CORPUS}" ABSOLUTE)
  endif()
  set(dictionary)
  if(arg_DICTIONARY)
    get_filename_component(dictionary "${arg_DICTIONARY}" ABSOLUTE)
    set(dictionary "-dict=${dictionary}")
  endif()
  if(SLUICE_LIBFUZZER)
    # New inputs go to the build folder, never into the committed corpus.
    set(found "${PROJECT_BINARY_DIR}/corpus/${name}")
    file(MAKE_DIRECTORY "${found}")
    set(arguments -rss_limit_mb=1024 -malloc_limit_mb=256 -timeout=10 ${dictionary} "${found}"
        ${corpus})
    add_test(NAME ${name} COMMAND ${name} -max_total_time=20 ${arguments})
    # For scripts/fuzz_long.
    list(JOIN arguments "\n" lines)
    file(WRITE "${PROJECT_BINARY_DIR}/fuzz/${name}.arguments" "${lines}\n")
  else()
    if(SLUICE_SANITIZE)
      set(seconds 5)
    else()
      set(seconds 0.3)
    endif()
    add_test(NAME ${name} COMMAND ${name} -seconds=${seconds} ${corpus})
  endif()
  _sluice_test_properties(${name} "fuzz" "120" "")
  add_dependencies(sluice-fuzzers ${name})
  add_dependencies(sluice-tests ${name})
endfunction()

function(sluice_bench)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME" "SOURCES;DEPENDS;LIBS")
  _sluice_require_all_parsed()
  _sluice_prefixed(name "${arg_NAME}")
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE benchmark::benchmark_main)
  _sluice_link_libs(${name} PRIVATE ${arg_LIBS})
  _sluice_link(${name} PRIVATE ${arg_DEPENDS})
  add_dependencies(sluice-benches ${name})
endfunction()

# ---- internals ----

macro(_sluice_require_all_parsed)
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "unknown arguments: ${arg_UNPARSED_ARGUMENTS}")
  endif()
endmacro()

# gguf_test in tests/io becomes io_gguf_test: two modules may use one file name.
function(_sluice_prefixed result name)
  get_filename_component(module "${CMAKE_CURRENT_SOURCE_DIR}" NAME)
  if(name MATCHES "^${module}_")
    set(${result} "${name}" PARENT_SCOPE)
  else()
    set(${result} "${module}_${name}" PARENT_SCOPE)
  endif()
endfunction()

function(_sluice_test_properties name labels timeout serial)
  get_filename_component(module "${CMAKE_CURRENT_SOURCE_DIR}" NAME)
  if(NOT labels)
    set(labels unit)
  endif()
  if(NOT timeout)
    set(timeout 300)
  endif()
  set(environment "SLUICE_SOURCE_DIR=${PROJECT_SOURCE_DIR}"
                  "SLUICE_BINARY=${CMAKE_RUNTIME_OUTPUT_DIRECTORY}/sluice"
                  # A developer's own settings must not reach the tests.
                  "XDG_CONFIG_HOME=${PROJECT_BINARY_DIR}/no-settings")
  if(NOT SLUICE_SANITIZE)  # minutes under a sanitizer, and nothing that smaller models leave out
    list(APPEND environment
         "SLUICE_DEMO_MODEL=${PROJECT_SOURCE_DIR}/demo/SmolLM2-135M-Instruct.Q4_1.gguf")
  endif()
  if(SLUICE_PYTHON)
    list(APPEND environment "SLUICE_PYTHON=${SLUICE_PYTHON}")
  endif()
  if(SLUICE_REAL_INPUTS)
    list(APPEND environment "SLUICE_REAL_INPUTS=${SLUICE_REAL_INPUTS}")
  endif()
  set_tests_properties(${name} PROPERTIES
    LABELS "${labels};${module}" TIMEOUT ${timeout} SKIP_RETURN_CODE 77
    ENVIRONMENT "${environment}")
  if(serial)
    set_tests_properties(${name} PROPERTIES RUN_SERIAL ON)
  endif()
endfunction()
