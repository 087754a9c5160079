// The C interface of the Rust crate in crate/, for the facade in this folder alone. Functions that
// return int give 0, or one of kTextCorrupt and the like with the reason in the buffer. Buffers are
// the crate's memory: every filled one goes back through sluice_text_free. Handles are
// thread-safe but for decoders and matchers (one thread). Nothing unwinds out of it.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

struct SluiceTokenizer;
struct SluiceDecoder;
struct SluiceTemplate;
struct SluiceMatcher;

// Read during the call only; data may be null where size is 0.
struct SluiceBytes {
  const char* data;
  size_t size;
};

struct SluiceBuffer {
  char* data;
  size_t size;
  size_t capacity;
};

// A variable of a template: its name and its value as JSON.
struct SluiceVariable {
  SluiceBytes name;
  SluiceBytes json;
};

enum SluiceTextCode : int32_t {
  kTextOk = 0,
  kTextCorrupt = 1,
  kTextUnsupported = 2,
  kTextInvalidArgument = 3,
  kTextExhausted = 4,
};

void sluice_text_free(SluiceBuffer buffer);

int32_t sluice_tokenizer_open(SluiceBytes json, const SluiceTokenizer** tokenizer,
                              SluiceBuffer* error);
void sluice_tokenizer_free(const SluiceTokenizer* tokenizer);
// out: ids as uint32_t in this machine's byte order.
int32_t sluice_tokenizer_encode(const SluiceTokenizer* tokenizer, SluiceBytes text,
                                bool add_special_tokens, SluiceBuffer* out);
size_t sluice_tokenizer_size(const SluiceTokenizer* tokenizer);
int32_t sluice_tokenizer_token(const SluiceTokenizer* tokenizer, uint32_t id, bool* special,
                               SluiceBuffer* out);
int64_t sluice_tokenizer_id(const SluiceTokenizer* tokenizer, SluiceBytes token);  // −1: none

// The decoder keeps what it needs of the tokenizer alive.
SluiceDecoder* sluice_decoder_new(const SluiceTokenizer* tokenizer, bool skip_special);
void sluice_decoder_free(SluiceDecoder* decoder);
int32_t sluice_decoder_push(SluiceDecoder* decoder, uint32_t id, SluiceBuffer* out);
int32_t sluice_decoder_flush(SluiceDecoder* decoder, SluiceBuffer* out);

enum SluiceMatcherKind : uint32_t {
  kMatcherSchema = 0,
  kMatcherRegex = 1,
  kMatcherLark = 2,
};
// Keeps what it needs of the tokenizer alive.
int32_t sluice_matcher_open(const SluiceTokenizer* tokenizer, uint32_t kind, SluiceBytes text,
                            SluiceMatcher** matcher, SluiceBuffer* error);
void sluice_matcher_free(SluiceMatcher* matcher);
int32_t sluice_matcher_clone(const SluiceMatcher* matcher, SluiceMatcher** copy,
                             SluiceBuffer* error);
size_t sluice_matcher_words(const SluiceMatcher* matcher);
int32_t sluice_matcher_mask(SluiceMatcher* matcher, uint32_t* mask, bool* may_end,
                            SluiceBuffer* error);
int32_t sluice_matcher_take(SluiceMatcher* matcher, uint32_t token, SluiceBuffer* error);
int32_t sluice_matcher_take_text(SluiceMatcher* matcher, SluiceBytes text, SluiceBuffer* error);
int32_t sluice_matcher_count(SluiceMatcher* matcher, const uint32_t* tokens, size_t count,
                             size_t* allowed, SluiceBuffer* error);
int32_t sluice_matcher_may_end(SluiceMatcher* matcher, bool* may_end, SluiceBuffer* error);

int32_t sluice_template_open(SluiceBytes source, SluiceTemplate** result, SluiceBuffer* error);
void sluice_template_free(SluiceTemplate* chat_template);
// now: year, month 1-12, day, hour, minute, second.
int32_t sluice_template_render(const SluiceTemplate* chat_template, const SluiceVariable* variables,
                               size_t count, const int64_t* now, SluiceBuffer* out);

}  // extern "C"
