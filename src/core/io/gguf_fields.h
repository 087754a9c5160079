// Typed, bounded access to GGUF metadata. Private to io.
#pragma once

#include <cmath>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "io/gguf.h"

namespace sluice::io {

// The decimal that the value was most likely written from: 1e-05, not 9.999999747378752e-06.
inline double shortest_decimal(float value) {
  // Through the JSON parser, since libc++ 19 lacks from_chars for floating point and strtod follows
  // the locale.
  const auto decimal = parse_json(fmt::format("{}", value), "number");
  return decimal && decimal->is_number() ? decimal->get<double>() : value;
}

// One file's metadata, seen through its architecture's prefix where a key begins with a dot.
class GgufFields {
 public:
  GgufFields(const GgufHeader& header, std::string label, std::string architecture)
      : header_(header), label_(std::move(label)), architecture_(std::move(architecture)) {}

  std::string full(std::string_view key) const {
    return key.starts_with('.') ? architecture_ + std::string(key) : std::string(key);
  }
  const GgufValue* find(std::string_view key) const { return header_.find(full(key)); }

  // Nothing when absent. A per-layer array counts when all its elements agree.
  Result<std::optional<uint64_t>> integer(std::string_view key, uint64_t low, uint64_t high) const;
  Result<uint64_t> required(std::string_view key, uint64_t low, uint64_t high) const;
  Result<std::optional<double>> number(std::string_view key) const;
  Result<std::optional<bool>> boolean(std::string_view key) const;
  Result<std::optional<std::string>> text(std::string_view key) const;
  // nullptr when absent; kCorrupt when it is no array.
  Result<const GgufArray*> array(std::string_view key) const;

  const GgufHeader& header() const { return header_; }
  const std::string& label() const { return label_; }
  const std::string& architecture() const { return architecture_; }

 private:
  std::unexpected<Error> wrong_type(std::string_view key, std::string_view expected) const {
    return fail(ErrorCode::kCorrupt, "{}: metadata key {} should be {}", label_, full(key),
                expected);
  }

  const GgufHeader& header_;
  const std::string label_;
  const std::string architecture_;
};

}  // namespace sluice::io
