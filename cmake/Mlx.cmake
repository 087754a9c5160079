# MLX's C++ library for the GPU back-end, as its Python wheel brings it (scripts/setup gpu): headers,
# library, and a CMake package that `python -m mlx --cmake-dir` names. Gives sluice::mlx and
# SLUICE_HAVE_MLX.

if(APPLE)
  set(_sluice_mlx_default ON)
else()
  set(_sluice_mlx_default OFF)
endif()
option(SLUICE_MLX "Build the GPU back-end over MLX" ${_sluice_mlx_default})

set(SLUICE_HAVE_MLX OFF)
if(SLUICE_MLX)
  if(NOT MLX_DIR)
    execute_process(
      COMMAND "${PROJECT_SOURCE_DIR}/.venv/bin/python" -m mlx --cmake-dir
      OUTPUT_VARIABLE _sluice_mlx_dir OUTPUT_STRIP_TRAILING_WHITESPACE
      RESULT_VARIABLE _sluice_mlx_failed ERROR_QUIET)
    if(_sluice_mlx_failed)
      message(FATAL_ERROR
        "SLUICE_MLX is on, and there is no MLX in .venv. `scripts/setup gpu` installs it; "
        "-DSLUICE_MLX=OFF builds without the GPU; MLX_DIR names a package elsewhere.")
    endif()
  endif()
  find_package(MLX CONFIG REQUIRED HINTS "${_sluice_mlx_dir}")
  _sluice_dependency(mlx mlx)
  set(SLUICE_HAVE_MLX ON)
  # The library stays where the wheel has it.
  set(CMAKE_INSTALL_RPATH_USE_LINK_PATH ON)
endif()
