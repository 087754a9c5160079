// Decoding of any float dtype with the fast path where there is one. Header only.
#pragma once

#include <span>

#include "kernels/kernel_table.h"
#include "numerics/block_codec.h"

namespace sluice::kernels {

// numerics::decode_elements, faster for plain floats. The table must outlive the result.
inline auto element_decoder(const KernelTable& table) {
  return [&table](numerics::DType dtype, std::span<const std::byte> in, std::span<float> out) {
    using numerics::DType;
    if (dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16)
      table.decode_floats(dtype, in, out);
    else
      numerics::decode_elements(dtype, in, out);
  };
}

// Both ways of decoding that reading a source takes, as an aggregate of two functions.
template <class Decoders>
Decoders source_decoders(const KernelTable& table) {
  return {element_decoder(table),
          [&table](const numerics::ConstAffineRow& in, const numerics::QuantFormat& format,
                   numerics::DType dtype,
                   std::span<float> out) { table.decode_affine(in, format, dtype, out); }};
}

}  // namespace sluice::kernels
