// XXH3-128 digests of bytes: identities of sources, tensors and journal records. They detect
// damage, not forgery. Wraps xxhash.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace sluice {

// Compares equal exactly when both halves do; hex() is xxHash's canonical big-endian form, 32
// lower-case digits.
struct Digest {
  uint64_t high = 0;
  uint64_t low = 0;
  auto operator<=>(const Digest&) const = default;
  std::string hex() const;
  static Result<Digest> from_hex(std::string_view text);
};

Digest digest_of(std::span<const std::byte> bytes);
Digest digest_of(std::string_view text);
// The low half of XXH3-64, where very many are kept: one damaged piece in four billion passes.
uint32_t short_digest_of(std::span<const std::byte> bytes);

// Incremental form. One thread.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;
  void update(std::span<const std::byte> bytes);
  void update(std::string_view text);
  // Feeds the canonical 16 bytes, so that a digest of digests does not depend on the machine.
  void update(const Digest& digest);
  Digest finish() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice
