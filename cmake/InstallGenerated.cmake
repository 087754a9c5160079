# Run by `cmake --install`: completions and the man page, printed by the program that is installed.
# Given SLUICE_PROGRAM. The builder's own settings are kept away.
function(_sluice_install_output path)
  set(file "$ENV{DESTDIR}${CMAKE_INSTALL_PREFIX}/${path}")
  get_filename_component(folder "${file}" DIRECTORY)
  file(MAKE_DIRECTORY "${folder}")
  message(STATUS "Installing: ${file}")
  execute_process(
    COMMAND "${CMAKE_COMMAND}" -E env XDG_CONFIG_HOME=/nonexistent "${SLUICE_PROGRAM}" ${ARGN}
    OUTPUT_FILE "${file}" COMMAND_ERROR_IS_FATAL ANY)
endfunction()

_sluice_install_output(share/man/man1/sluice.1 man)
_sluice_install_output(share/bash-completion/completions/sluice completions bash)
_sluice_install_output(share/zsh/site-functions/_sluice completions zsh)
_sluice_install_output(share/fish/vendor_completions.d/sluice.fish completions fish)
