// What a file compiled for one instruction set exports: plain function pointers over raw pointers.
// Nothing here, and nothing it includes, has inline functions, because the linker might keep the
// copy that was compiled for the wider set.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace sluice::kernels {

enum Element { kElementF32, kElementF16, kElementBF16 };

struct RawStats {
  double squared_error, squared_weight, error_max;
};

struct RawRow {
  uint8_t* weight;
  uint8_t* scales;
  uint8_t* biases;
};
struct ConstRawRow {
  const uint8_t* weight;
  const uint8_t* scales;
  const uint8_t* biases;
};

struct RawFormat {
  int bits, group;
  Element element;
};

// Arguments as in KernelTable, already checked.
struct RawOps {
  void (*decode_floats)(Element element, const uint8_t* in, float* out, size_t count);
  RawStats (*encode_parity)(const float* row, size_t columns, RawFormat format, bool gpu_rule,
                            RawRow out);
  RawStats (*encode_best)(const float* row, size_t columns, RawFormat format, RawRow out);
  void (*decode_affine)(ConstRawRow in, size_t columns, RawFormat format, float* out);
  RawStats (*row_error)(const float* row, size_t columns, ConstRawRow in, RawFormat format);
  // Adds to squared_error[18] and squared_weight, raises error_max[18]; candidates whose group does
  // not divide the row are left alone.
  void (*price_parity)(const float* row, size_t columns, Element element, double* squared_error,
                       float* error_max, double* squared_weight);
  // bits[count] widths at one group; adds to squared_error[count], raises error_max[count].
  void (*price_best)(const float* row, size_t columns, int group, Element element, const int* bits,
                     int count, double* squared_error, float* error_max);
  size_t (*find_unencodable)(const float* row, size_t columns);
};

enum FpMode { kFpMxfp4, kFpMxfp8, kFpNvfp4 };

struct RawFpRow {
  uint8_t* weight;
  uint8_t* scales;
};
struct ConstRawFpRow {
  const uint8_t* weight;
  const uint8_t* scales;
};

struct RawFpOps {
  // Null out.weight: only the figures are wanted. False, with nothing promised of what was written,
  // when the row holds a group that is left to the scalar reference.
  bool (*encode)(const float* row, size_t columns, FpMode mode, Element element, bool searched,
                 RawFpRow out, RawStats* stats);
  RawStats (*row_error)(const float* row, size_t columns, ConstRawFpRow in, FpMode mode);
  void (*decode)(ConstRawFpRow in, size_t columns, FpMode mode, float* out);
  // Adds to squared_error[3] and raises error_max[3]; infinities where a group is special. Modes
  // whose group does not divide the row are left alone.
  void (*price)(const float* row, size_t columns, Element element, double* squared_error,
                float* error_max);
};

// Null where the set was not built.
const RawOps* scalar_ops();
const RawOps* neon_ops();
const RawOps* avx2_ops();
const RawOps* avx512_ops();
const RawFpOps* scalar_fp_ops();
const RawFpOps* neon_fp_ops();
const RawFpOps* avx2_fp_ops();
const RawFpOps* avx512_fp_ops();

}  // namespace sluice::kernels
