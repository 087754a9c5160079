#include "io/address.h"

#include <algorithm>
#include <array>

namespace sluice::io {
namespace {

struct Block {
  uint32_t address;
  unsigned bits;
};

// IANA's registry of special-purpose addresses, and multicast with all above.
constexpr std::array kSpecial = {
    Block{0x00000000, 8},  Block{0x0A000000, 8},  Block{0x64400000, 10}, Block{0x7F000000, 8},
    Block{0xA9FE0000, 16}, Block{0xAC100000, 12}, Block{0xC0000000, 24}, Block{0xC0000200, 24},
    Block{0xC0586300, 24}, Block{0xC0A80000, 16}, Block{0xC6120000, 15}, Block{0xC6336400, 24},
    Block{0xCB007100, 24}, Block{0xE0000000, 3}};

bool is_public_v4(std::span<const uint8_t> bytes) {
  uint32_t address = 0;
  for (const uint8_t byte : bytes) address = address << 8 | byte;
  // Of Azure, its metadata and DNS, though the number is a public one.
  if (address == 0xA83F8110) return false;
  return std::ranges::none_of(kSpecial, [&](const Block& block) {
    return (address ^ block.address) >> (32 - block.bits) == 0;
  });
}

}  // namespace

bool is_public_address(std::span<const uint8_t> bytes) {
  if (bytes.size() == 4) return is_public_v4(bytes);
  if (bytes.size() != 16) return false;
  // NAT64 (64:ff9b::/96) and 6to4 (2002::/16) hold an IPv4 address that is what is reached.
  constexpr std::array<uint8_t, 12> kNat64 = {0, 0x64, 0xFF, 0x9B};
  if (std::ranges::equal(bytes.first(12), kNat64)) return is_public_v4(bytes.last(4));
  if (bytes[0] == 0x20 && bytes[1] == 0x02) return is_public_v4(bytes.subspan(2, 4));
  // Only 2000::/3 is given out; of it not 2001::/23 (Teredo and other protocols), 2001:db8::/32,
  // 3fff::/20 (documentation).
  if (bytes[0] >> 5 != 1) return false;
  if (bytes[0] == 0x20 && bytes[1] == 0x01)
    return bytes[2] >= 2 && !(bytes[2] == 0x0D && bytes[3] == 0xB8);
  return !(bytes[0] == 0x3F && bytes[1] == 0xFF && bytes[2] >> 4 == 0);
}

}  // namespace sluice::io
