#include "evaluate/windows.h"

#include <algorithm>

namespace sluice::evaluate {
namespace {

constexpr std::string_view kNames[] = {"llama.cpp", "mlx", "plain"};

std::vector<Window> whole_windows(std::span<const uint32_t> ids, size_t context_tokens,
                                  size_t first_scored) {
  std::vector<Window> windows;
  for (; ids.size() >= context_tokens; ids = ids.subspan(context_tokens)) {
    const auto part = ids.first(context_tokens);
    windows.push_back({{part.begin(), part.end()}, first_scored});
  }
  return windows;
}

std::vector<Window> every_token(std::span<const uint32_t> ids, size_t context_tokens,
                                std::optional<uint32_t> bos) {
  std::vector<Window> windows;
  for (size_t next = bos ? 0 : 1; next < ids.size(); next += context_tokens - 1) {
    const auto scored = ids.subspan(next, std::min(context_tokens - 1, ids.size() - next));
    Window window;
    window.ids.push_back(bos ? *bos : ids[next - 1]);
    window.ids.insert(window.ids.end(), scored.begin(), scored.end());
    windows.push_back(std::move(window));
  }
  return windows;
}

}  // namespace

std::string_view protocol_name(Protocol protocol) { return kNames[static_cast<size_t>(protocol)]; }

std::optional<Protocol> protocol_from_name(std::string_view name) {
  for (const Protocol protocol : {Protocol::kLlamaCpp, Protocol::kMlx, Protocol::kPlain})
    if (protocol_name(protocol) == name) return protocol;
  return std::nullopt;
}

Digest windows_digest(std::span<const Window> windows) {
  Hasher hasher;
  for (const Window& window : windows) {
    const uint64_t head[] = {window.ids.size(), window.first_scored};
    hasher.update(std::as_bytes(std::span(head)));
    hasher.update(std::as_bytes(std::span(window.ids)));
  }
  return hasher.finish();
}

Result<std::vector<Window>> cut_windows(Protocol protocol, std::span<const uint32_t> ids,
                                        size_t context_tokens, std::optional<uint32_t> bos) {
  SLUICE_CHECK(context_tokens >= 4);
  std::vector<Window> windows;
  if (protocol == Protocol::kPlain) {
    windows = every_token(ids, context_tokens, bos);
  } else {
    const bool llama = protocol == Protocol::kLlamaCpp;
    windows = whole_windows(ids, context_tokens, llama ? context_tokens / 2 + 1 : 1);
    if (llama && bos)
      for (Window& window : windows) window.ids.front() = *bos;
  }
  if (windows.empty())
    return fail(ErrorCode::kInvalidArgument,
                "the text has {} tokens; protocol {} with a context of {} needs {}", ids.size(),
                protocol_name(protocol), context_tokens,
                protocol == Protocol::kPlain ? 2 : context_tokens);
  return windows;
}

}  // namespace sluice::evaluate
