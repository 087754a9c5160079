// Which addresses of the internet protocol belong to machines out there, and which to this machine,
// its network and those who run it.
#pragma once

#include <cstdint>
#include <span>

namespace sluice::io {

// bytes: 4 of IPv4 or 16 of IPv6, in network order. False for loopback, private, link-local
// (metadata services among them), shared, multicast, reserved and documentation addresses, and for
// IPv6 addresses that stand for such an IPv4 one.
bool is_public_address(std::span<const uint8_t> bytes);

}  // namespace sluice::io
