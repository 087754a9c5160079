// How many processes another one has become. Where the kernel keeps to no limit (root's), whoever
// runs a program has to look. Private to the tools.
#pragma once

#include <sys/types.h>

#include <cstddef>

namespace sluice::chat {

// The process and all below it now, those of namespaces too. 0 where the system does not tell.
size_t count_processes(pid_t top);

}  // namespace sluice::chat
