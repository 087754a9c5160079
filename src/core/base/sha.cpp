#include "base/sha.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <string_view>

#include "base/error.h"

namespace sluice {

struct ShaHasher::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { EVP_MD_CTX_free(context); }
};

ShaHasher::ShaHasher(ShaKind kind) : state_(std::make_unique<State>()) {
  // Both fail only without memory.
  SLUICE_CHECK(state_->context != nullptr);
  SLUICE_CHECK(EVP_DigestInit_ex(state_->context,
                                 kind == ShaKind::kSha1 ? EVP_sha1() : EVP_sha256(), nullptr) == 1);
}
ShaHasher::~ShaHasher() = default;
ShaHasher::ShaHasher(ShaHasher&&) noexcept = default;
ShaHasher& ShaHasher::operator=(ShaHasher&&) noexcept = default;

void ShaHasher::update(std::span<const std::byte> bytes) {
  SLUICE_CHECK(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()) == 1);
}

std::string ShaHasher::finish() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned bytes = 0;
  SLUICE_CHECK(EVP_DigestFinal_ex(state_->context, digest, &bytes) == 1);
  std::string hex;
  for (unsigned i = 0; i < bytes; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex;
}

}  // namespace sluice
