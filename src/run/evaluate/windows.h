// How a long text is cut into windows that a model reads one at a time, and which of their tokens
// count. Perplexities compare only under one protocol, context and tokenizer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/digest.h"
#include "base/error.h"

namespace sluice::evaluate {

enum class Protocol : uint8_t {
  // As llama.cpp's perplexity tool: windows of `context` tokens without overlap, the first replaced
  // by BOS where the tokenizer adds one; the second half is scored, tokens context/2 + 1 onwards.
  kLlamaCpp,
  // As mlx_lm.perplexity: windows of `context` tokens without overlap, all but the first scored.
  kMlx,
  // Every token of the text but a first one without BOS is scored once: windows of up to `context`
  // tokens that begin with BOS, or without one with the token before, which is not scored; a last
  // shorter window is kept.
  kPlain,
};

std::string_view protocol_name(Protocol protocol);  // "llama.cpp", "mlx", "plain"
std::optional<Protocol> protocol_from_name(std::string_view name);

// Tokens [first_scored, ids.size()) count, each given all before it in the window.
struct Window {
  std::vector<uint32_t> ids;
  size_t first_scored = 1;
};

// Of all ids, and of which count.
Digest windows_digest(std::span<const Window> windows);

// ids: the text's tokens as the protocol's own tool encodes it, with what the tokenizer adds at its
// start for kLlamaCpp and kMlx, without for kPlain. bos: where the tokenizer adds one.
// context_tokens: at least 4. Errors: kInvalidArgument when the text is too short for one window.
Result<std::vector<Window>> cut_windows(Protocol protocol, std::span<const uint32_t> ids,
                                        size_t context_tokens, std::optional<uint32_t> bos);

}  // namespace sluice::evaluate
