// The Hugging Face side of a GGUF file: config.json, generation_config.json and the tokenizer
// files, rebuilt from its metadata. What cannot be rebuilt faithfully is refused, never guessed.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "io/byte_source.h"
#include "io/gguf.h"

namespace sluice::io {

// Architectures llama, qwen2, qwen3 and qwen3moe. source: the file with rope_freqs.weight, if there
// is one, whose values tell the llama3 scaling. kUnsupported for other architectures and for
// parameters that the rebuilt configuration could not express; kCorrupt for values that contradict
// the tensors.
Result<Json> rebuild_config(const GgufHeader& header, const ByteSource& source);

// Token ids that begin and end text, and how to pad.
Json rebuild_generation_config(const GgufHeader& header);

struct TextFile {
  std::string name;
  std::string text;
};

// tokenizer.json and tokenizer_config.json. Tokenizer models: gpt2 (byte-level BPE) and llama
// (sentencepiece BPE). kUnsupported for others and for unknown pre-tokenizers.
Result<std::vector<TextFile>> rebuild_tokenizer(const GgufHeader& header, const std::string& label);

// Every end-of-text token: eos, then end-of-turn and end-of-message where they differ.
std::vector<uint64_t> gguf_eos_ids(const GgufHeader& header);

}  // namespace sluice::io
