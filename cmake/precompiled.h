// What most files include anyway, parsed once: JSON and fmt are two thirds of a file's compile
// time. Every file still includes what it uses; the Mac stand-in builds without this one.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <expected>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>
