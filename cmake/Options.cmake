# Compiler options that hold for every target. Numbers must not depend on the machine, so
# floating-point contraction is off everywhere and nothing is compiled for the build host's CPU.

set(CMAKE_CXX_STANDARD 23)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bin")

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

# CMake would add NDEBUG to RelWithDebInfo; the development builds keep SLUICE_DCHECK on. Line
# tables (-g1) are enough for stack traces and cost little compile time.
set(SLUICE_DEV_FLAGS "-O2 -g1" CACHE STRING "Optimisation and debug flags of RelWithDebInfo")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "${SLUICE_DEV_FLAGS}")
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")

add_compile_options(
  -ffp-contract=off
  -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Wimplicit-fallthrough
  -Wno-psabi  # vector types never cross a library boundary of ours
)
if(SLUICE_WERROR)
  add_compile_options(-Werror)
endif()
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  add_compile_options(-Wthread-safety)
  # libstdc++ 12 calls its own deprecated functions in std::stable_sort.
  if(NOT APPLE)
    add_compile_options(-Wno-deprecated-declarations)
  endif()
endif()
# Code of the crates that nothing calls is an eighth of the program: left in, it spreads what is used
# over more pages, and every run holds a megabyte more.
if(APPLE)
  add_link_options(-Wl,-dead_strip)
elseif(UNIX)
  add_link_options(-Wl,--as-needed -Wl,--gc-sections)
endif()

if(SLUICE_SANITIZE)
  add_compile_options(-fsanitize=${SLUICE_SANITIZE} -fno-sanitize-recover=all
                      -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${SLUICE_SANITIZE})
  # g++ 12 reports false positives of these from its own headers under a sanitizer.
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    add_compile_options(-Wno-maybe-uninitialized -Wno-stringop-overflow -Wno-array-bounds
                        -Wno-restrict)
  endif()
endif()
