// Decoders of single GGUF blocks, one function a type: the scalar reference behind
// decode_elements(). Layouts: docs/formats.md#gguf-blocks. Private to numerics.
//
// block: one whole block, any alignment; out: the type's block_elements. Every bit pattern decodes
// to something; arithmetic follows ggml's order, because every f32 rounding counts. Reentrant.
#pragma once

#include <array>

#include "numerics/bytes.h"

namespace sluice::numerics {

// 256 wide, scales of scales (ggml_k_blocks.cpp).
void decode_q2_k(Bytes block, float* out);
void decode_q3_k(Bytes block, float* out);
void decode_q4_k(Bytes block, float* out);
void decode_q5_k(Bytes block, float* out);
void decode_q6_k(Bytes block, float* out);

// 256 wide, vectors from code books (ggml_iq_blocks.cpp).
void decode_iq1_s(Bytes block, float* out);
void decode_iq1_m(Bytes block, float* out);
void decode_iq2_xxs(Bytes block, float* out);
void decode_iq2_xs(Bytes block, float* out);
void decode_iq2_s(Bytes block, float* out);
void decode_iq3_xxs(Bytes block, float* out);
void decode_iq3_s(Bytes block, float* out);

// Single values from tables of 16: IQ4_NL 32 wide, IQ4_XS 256, MXFP4 32, NVFP4 64
// (ggml_table_blocks.cpp).
void decode_iq4_nl(Bytes block, float* out);
void decode_iq4_xs(Bytes block, float* out);
void decode_mxfp4(Bytes block, float* out);
void decode_nvfp4(Bytes block, float* out);
// IQ4_NL's values, by code.
extern const std::array<int8_t, 16> kIq4Values;
// Of one of IQ4_XS's eight groups, under the block's f16: −32 to 31.
int iq4_xs_scale(Bytes block, size_t group);
// Half of 2^(bits − 127): a power of two down to 2⁻¹²⁸, which f32 holds as a subnormal.
float half_e8m0(uint8_t bits);

// Codes of 1 and 2 bits under one scale: w = (code − 1)·d; Q1_0's codes are 0 and 2
// (ggml_small_blocks.cpp). TQ1_0 and TQ2_0 are 256 wide, Q1_0 128, Q2_0 64.
void codes_tq1_0(Bytes block, uint8_t* codes);
void codes_tq2_0(Bytes block, uint8_t* codes);
void codes_q1_0(Bytes block, uint8_t* codes);
void codes_q2_0(Bytes block, uint8_t* codes);
void decode_tq1_0(Bytes block, float* out);
void decode_tq2_0(Bytes block, float* out);
void decode_q1_0(Bytes block, float* out);
void decode_q2_0(Bytes block, float* out);

}  // namespace sluice::numerics
