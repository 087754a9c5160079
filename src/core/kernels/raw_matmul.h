// What a file of products compiled for one instruction set exports; like raw_ops.h, without inline
// functions.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/raw_ops.h"

namespace sluice::kernels {

// How codes and scales of a coded format are stored.
enum RawCoding {
  kAffine2,
  kAffine3,
  kAffine4,
  kAffine5,
  kAffine6,
  kAffine8,
  kMxfp4Codes,
  kNvfp4Codes,
  kQ4_0Blocks,
  kQ4_1Blocks,
  kQ5_0Blocks,
  kQ5_1Blocks,
  kQ8_0Blocks,
  kQ2KBlocks,
  kQ3KBlocks,
  kQ4KBlocks,
  kQ5KBlocks,
  kQ6KBlocks,
  kIQ4NLBlocks,
  kIQ4XSBlocks,
  kMXFP4Blocks,
  kCodings,
};

// What a sum's products are of.
enum RawProducts { kFloatProducts, kWordProducts, kByteProducts };

// A product, its rows from the first on. Strides in bytes but for y's.
struct RawMatmul {
  const uint8_t* weight;
  const uint8_t* scales;
  const uint8_t* biases;
  size_t weight_stride, scale_stride;
  size_t rows, columns, groups;  // groups of `group` activations
  int group;
  bool roomy;               // the inner cache has room for what will be read soon
  Element element;          // of affine scales and biases; of the weights in products of floats
  const uint8_t* prepared;  // as PreparedLayout says
  size_t prepared_stride, scales_at, sums_at;
  size_t tokens;
  float* y;
  size_t y_stride;
  uint8_t* scratch;  // aligned to 64
};

// Of sixteen rows' parameters of one block in scratch.
constexpr size_t kBlockPanelBytes = 26 * 64;

struct RawPrepare {
  const float* x;
  size_t columns;
  int group;
  bool wide;        // 16-bit storage
  float top;        // 127 or 32767
  bool whole_sums;  // offset·S as whole numbers, else sx·S
  int offset;
  int sums_of;  // 16 or 32: instead S of so many as int16, as PreparedLayout says; else 0
  const uint8_t* position;  // of each of 32 values; null: in order
  float* scales;
  uint8_t* values;  // zeroed
  uint8_t* sums;
};

struct RawMatmulOps {
  void (*prepare)(const RawPrepare& p);
  // Where each of 32 values goes; null: in order.
  const uint8_t* (*position)(RawCoding coding, bool wide);
  // blocks: scales stay whole numbers, never with wide.
  void (*coded)(RawCoding coding, bool wide, bool blocks, const RawMatmul& m);
  // Of weights that are floats of m.element.
  void (*floats)(const RawMatmul& m);
  // Of MXFP8, one token, the same sums as of what it decodes to.
  void (*mxfp8)(const RawMatmul& m);
  // About so many products of registers and how many they were.
  uint64_t (*multiply_only)(RawProducts kind, uint64_t count);
};

// Null where the set was not built.
const RawMatmulOps* neon_matmul_ops();      // of these two the one that the processor runs
const RawMatmulOps* neon_dot_matmul_ops();  // only where NEON was built
const RawMatmulOps* avx2_matmul_ops();
const RawMatmulOps* avx512_matmul_ops();       // where the processor has VNNI
const RawMatmulOps* avx512_vbmi_matmul_ops();  // and VBMI and GFNI

}  // namespace sluice::kernels
