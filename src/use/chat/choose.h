// How a token is picked: the caller's business, here and in drafts.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "base/error.h"

namespace sluice::chat {

// Picks the token that follows `tokens`. Called once for every token that becomes part of the text
// (and once for the one that ends it), in order, whether or not it was guessed before.
using Choose = std::function<Result<uint32_t>(std::span<const float> logits,
                                              std::span<const uint32_t> tokens)>;

}  // namespace sluice::chat
