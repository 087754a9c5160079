// SHA-256 and SHA-1 in hexadecimal, which hubs name files by. Wraps OpenSSL's libcrypto. What
// Sluice itself records are the much faster digests of base/digest.h.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace sluice {

enum class ShaKind {
  kSha1,    // git's, of a blob with its header
  kSha256,  // of a large file
};

// Incremental. One thread.
class ShaHasher {
 public:
  explicit ShaHasher(ShaKind kind);
  ~ShaHasher();
  ShaHasher(ShaHasher&&) noexcept;
  ShaHasher& operator=(ShaHasher&&) noexcept;
  void update(std::span<const std::byte> bytes);
  // Lower-case digits. Ends the hasher.
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice
