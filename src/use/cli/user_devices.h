// Device profiles of the user's own, from ~/.config/sluice/devices.toml or the [devices] table of
// config.toml. A profile of a built-in name changes the keys it gives and keeps the others.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "allocate/devices.h"
#include "cli/context.h"

namespace sluice::cli {

// builtin with the profiles of one file's text put over it. label: the file, for origins and
// messages. devices_only: anything else in it is an error. Errors name file, line, profile and key.
Result<std::vector<allocate::DeviceProfile>> with_user_devices(
    std::vector<allocate::DeviceProfile> builtin, std::string_view text, const std::string& label,
    bool devices_only);

// All that --device knows: built-in ones, config.toml's over them, devices.toml's over these.
Result<std::vector<allocate::DeviceProfile>> known_devices(Context& context);

}  // namespace sluice::cli
