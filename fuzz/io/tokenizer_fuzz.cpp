// Tokenizers rebuilt from GGUF metadata that is well formed as such, so that every input gets past
// the container. The first byte is a set of flags, the lines behind it are tokens (a digit for the
// type, then the text), and after an empty line merges.
#include <charconv>
#include <string>
#include <string_view>

#include "allocation_bound.h"
#include "io/gguf_config.h"

namespace {

using namespace sluice;
using io::GgufArray;
using io::GgufType;

struct Strings {
  std::string text;
  std::vector<uint32_t> ends;
  void add(std::string_view more) {
    text += more;
    ends.push_back(static_cast<uint32_t>(text.size()));
  }
};

// The next line without its newline; text becomes what is behind it.
std::string_view take_line(std::string_view& text) {
  const size_t end = std::min(text.find('\n'), text.size());
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return line;
}

template <class Number>
void append_number(std::string& bytes, Number number) {
  bytes.append(reinterpret_cast<const char*>(&number), sizeof number);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const fuzz::AllocationBound bound(size);
  const uint8_t flags = data[0];
  std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::string_view pre = take_line(text);
  Strings tokens, merges;
  std::string types, scores;
  while (!text.empty()) {
    const std::string_view line = take_line(text);
    if (line.empty()) break;
    append_number(types, static_cast<int32_t>(line[0] - '0'));
    append_number(scores, -static_cast<float>(tokens.ends.size() * 7 % 13));
    tokens.add(line.substr(1));
  }
  while (!text.empty()) merges.add(take_line(text));

  io::GgufHeader header;
  auto& metadata = header.metadata;
  metadata.emplace("tokenizer.ggml.model", std::string((flags & 1) != 0 ? "llama" : "gpt2"));
  if (!pre.empty()) metadata.emplace("tokenizer.ggml.pre", std::string(pre));
  metadata.emplace("tokenizer.ggml.tokens", GgufArray(tokens.text, tokens.ends));
  if ((flags & 2) != 0)
    metadata.emplace("tokenizer.ggml.token_type", GgufArray(GgufType::kI32, types));
  if ((flags & 4) != 0)
    metadata.emplace("tokenizer.ggml.scores", GgufArray(GgufType::kF32, scores));
  if ((flags & 8) != 0)
    metadata.emplace("tokenizer.ggml.merges", GgufArray(merges.text, merges.ends));
  if ((flags & 16) != 0) metadata.emplace("tokenizer.ggml.bos_token_id", uint64_t{1});
  if ((flags & 32) != 0) metadata.emplace("tokenizer.ggml.eos_token_id", uint64_t{2});
  if ((flags & 64) != 0) metadata.emplace("tokenizer.ggml.add_bos_token", true);
  if ((flags & 128) != 0) metadata.emplace("tokenizer.ggml.add_eos_token", true);
  const auto files = io::rebuild_tokenizer(header, "fuzz");
  // Reading what was written costs as much as writing it: one input in eight, by its last byte.
  if (!files || data[size - 1] % 8 != 0) return 0;
  for (const io::TextFile& file : *files)
    SLUICE_CHECK(parse_json(file.text, file.name).has_value());
  return 0;
}
