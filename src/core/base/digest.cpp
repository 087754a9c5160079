#include "base/digest.h"

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include <charconv>

namespace sluice {
namespace {
Digest from_xxh(XXH128_hash_t hash) { return {hash.high64, hash.low64}; }
}  // namespace

std::string Digest::hex() const { return fmt::format("{:016x}{:016x}", high, low); }

Result<Digest> Digest::from_hex(std::string_view text) {
  Digest digest;
  const auto parse = [](std::string_view part, uint64_t& value) {
    const auto [end, code] = std::from_chars(part.data(), part.data() + part.size(), value, 16);
    return code == std::errc() && end == part.data() + part.size();
  };
  // Upper-case digits would be a second spelling, and a flipped bit that nobody notices.
  if (text.size() != 32 || text.find_first_of("ABCDEF") != std::string_view::npos ||
      !parse(text.substr(0, 16), digest.high) || !parse(text.substr(16), digest.low))
    return fail(ErrorCode::kCorrupt, "digest should be 32 hexadecimal digits, found \"{}\"", text);
  return digest;
}

Digest digest_of(std::span<const std::byte> bytes) {
  return from_xxh(XXH3_128bits(bytes.data(), bytes.size()));
}

Digest digest_of(std::string_view text) { return digest_of(std::as_bytes(std::span(text))); }

uint32_t short_digest_of(std::span<const std::byte> bytes) {
  return static_cast<uint32_t>(XXH3_64bits(bytes.data(), bytes.size()));
}

struct Hasher::State {
  XXH3_state_t xxh;
};

Hasher::Hasher() : state_(std::make_unique<State>()) { XXH3_128bits_reset(&state_->xxh); }
Hasher::~Hasher() = default;
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;

void Hasher::update(std::span<const std::byte> bytes) {
  XXH3_128bits_update(&state_->xxh, bytes.data(), bytes.size());
}

void Hasher::update(std::string_view text) { update(std::as_bytes(std::span(text))); }

void Hasher::update(const Digest& digest) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, {digest.low, digest.high});
  update(std::as_bytes(std::span(canonical.digest)));
}

Digest Hasher::finish() const { return from_xxh(XXH3_128bits_digest(&state_->xxh)); }

}  // namespace sluice
