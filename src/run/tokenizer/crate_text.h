// What the facade's sources share: texts across the C interface, and its codes as errors.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "tokenizer/text_crate.h"

namespace sluice::tokenizer {

inline SluiceBytes as_bytes(std::string_view text) { return {text.data(), text.size()}; }

// A buffer that the crate fills, given back when it goes out of scope.
class CrateText {
 public:
  CrateText() = default;
  ~CrateText() {
    if (buffer_.data != nullptr) sluice_text_free(buffer_);
  }
  CrateText(const CrateText&) = delete;
  CrateText& operator=(const CrateText&) = delete;

  SluiceBuffer* out() { return &buffer_; }
  std::string_view view() const { return {buffer_.data, buffer_.size}; }

  // The text that a call put here, or the error that its code stands for.
  Result<std::string> result(int32_t code) const {
    if (code == kTextOk) return std::string(view());
    return std::unexpected(Error{error_code(code), std::string(view())});
  }

 private:
  static ErrorCode error_code(int32_t code) {
    switch (code) {
      case kTextCorrupt: return ErrorCode::kCorrupt;
      case kTextInvalidArgument: return ErrorCode::kInvalidArgument;
      case kTextExhausted: return ErrorCode::kExhausted;
      default: return ErrorCode::kUnsupported;
    }
  }

  SluiceBuffer buffer_{};
};

}  // namespace sluice::tokenizer
