// Names in a folder. Errors name the folder.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"

namespace sluice::io {

// Bare names of everything in the folder but "." and "..", sorted.
Result<std::vector<std::string>> list_directory(const std::string& path);

}  // namespace sluice::io
