// Bytes as text: RFC 4648's base64, with padding.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace sluice {

std::string base64(std::span<const std::byte> bytes);

}  // namespace sluice
