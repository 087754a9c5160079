// Plain types of the layer maths, shared by its interface and by the files compiled for one
// instruction set. No functions.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace sluice::kernels {

// How one row of keys or values is kept (docs/architecture.md, layer maths). kQ8 and kQ4: groups of
// 32, the last one filled with zeros, each an f16 scale and then its codes.
//   kQ8  32 bytes: code + 128, code in −128..127;             x ≈ scale · code
//   kQ4  16 bytes: element j + 8 in the low half of byte j, element j + 16 in the high half;
//        code in −8..7;                                       x ≈ scale · code
enum class KvType : uint8_t { kF32, kF16, kQ8, kQ4 };

// Which elements turn together: j and j + rotary_dim / 2, or 2j and 2j + 1.
enum class RopeStyle : uint8_t { kHalf, kInterleaved };

enum class GeluForm : uint8_t { kTanh, kErf };

// What all query tokens of an attention call share.
struct AttentionShape {
  KvType key_type, value_type;
  size_t group;                  // query heads that share the kv head
  size_t key_dim;                // of a query head and a key
  size_t value_dim;              // of a value and an output head
  float scale;                   // of the scores
  float softcap = 0;             // c > 0: scores become c · tanh(score / c)
  size_t window = 0;             // W > 0: only the last W keys, the token's own included
  size_t chunk = 0;              // C > 0: only keys of the same C positions
  const float* sinks = nullptr;  // [group] scores that take their part of the softmax and give none
};

// Consecutive rows of one kv head. Row i of the keys starts at keys + i · key_stride bytes.
struct KvSpan {
  const uint8_t* keys;
  const uint8_t* values;
  size_t key_stride, value_stride;
  size_t rows;
};

// Query tokens at consecutive positions; strides in floats.
struct AttentionQueries {
  const float* q;  // [tokens][group · key_dim]
  size_t q_stride;
  size_t first_position;  // of the first token; a token sees keys up to its own position
  size_t tokens;
  float* out;  // [tokens][group · value_dim]
  size_t out_stride;
};

// Filters of more taps are not known.
inline constexpr size_t kConvolutionTapsMax = 16;
// A head's state lies in tiles of so many of its value_dim columns, [key_dim][kDeltaColumns] each;
// columns beyond value_dim are there and mean nothing.
inline constexpr size_t kDeltaColumns = 32;

// Consecutive rows of channels; strides in floats.
struct ConvolutionRows {
  float* x;  // [rows][channels]
  size_t stride;
  size_t rows, channels;
  const float* weight;  // [channels][taps], the last tap for the row itself
  const float* bias;    // [channels]; null for zeros
  size_t taps;          // 2 to kConvolutionTapsMax
  // The taps − 1 rows before these, and the last taps − 1 rows of both together; before may be null
  // for rows of zeros, or be after.
  const float* before;
  float* after;
  size_t state_stride;
};

// Consecutive rows of one tile of one head; strides in floats.
struct DeltaRows {
  const float *q, *k;  // [rows][key_dim]
  size_t qk_stride;
  const float* v;  // [rows][columns]
  size_t v_stride;
  const float *beta, *decay;  // one for each row; state_space: beta is the step
  size_t gate_stride;
  float* out;  // [rows][columns]
  size_t out_stride;
  size_t rows, key_dim, columns;
  const float* before;  // the tile's state; null for zeros; may be after
  float* after;
};

}  // namespace sluice::kernels
