// Products of few tokens with codes of four bits in registers of 512 bits: of each of eight rows
// four chunks of 32 codes at a time, one in each quarter of a register. Half as many instructions
// as in registers of 256 bits, and more of memory's latency hidden by those that wait. To be
// included after generic/matmul_few.h.
#pragma once

#include "kernels/generic/matmul_blocks.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

// Of eight groups of eight rows the scales and biases as they are stored, in 16 bits: of each group
// its scales, then its biases.
struct Halves {
  alignas(64) uint8_t bytes[8][32];
};

// Per coding: the packed codes of four chunks of a row; what nibbles stand for, kOffset above their
// values; and the parameters of eight groups, from which scales() and, where the coding has them,
// biases() are taken.
template <class Coding, Element kElement>
struct Quad {
  static constexpr bool kThere = false;
};
template <class Q>
constexpr size_t quad_at(size_t quad) {
  if constexpr (requires { Q::at(quad); })
    return Q::at(quad);
  else
    return quad * Q::kBytes;
}

template <Element kElement>
struct Quad<Affine<4>, kElement> {
  static constexpr bool kThere = kElement != kElementF32;
  static constexpr int kOffset = 0;
  static constexpr size_t kBytes = 64;
  using Values = Halves;
  static __m512i packed(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static __m512i codes_of(__m512i nibbles) { return nibbles; }
  // Rows in, groups out, scales and biases side by side.
  static void parameters(const RawMatmul&, const Rows& rows, size_t g0, Halves& out) {
    __m256i r[8], s[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i)
      r[i] = load_halves(rows.scales[i] + g0 * 2, rows.biases[i] + g0 * 2);
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
      s[i] = _mm256_unpacklo_epi16(r[i], r[i + 1]);
      s[i + 1] = _mm256_unpackhi_epi16(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const int at = i / 2 * 4 + i % 2;
      r[2 * i] = _mm256_unpacklo_epi32(s[at], s[at + 2]);
      r[2 * i + 1] = _mm256_unpackhi_epi32(s[at], s[at + 2]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      store(out.bytes[2 * i], _mm256_unpacklo_epi64(r[i], r[i + 4]));
      store(out.bytes[2 * i + 1], _mm256_unpackhi_epi64(r[i], r[i + 4]));
    }
  }
  static V scales(const Halves& of, size_t g) { return load_8(kElement, of.bytes[g]); }
  static V biases(const Halves& of, size_t g) { return load_8(kElement, of.bytes[g] + 16); }

 private:
  static void store(uint8_t* p, __m256i v) { _mm256_store_si256(reinterpret_cast<__m256i*>(p), v); }
};

inline __m512i look_up_quad(const uint8_t* table, __m512i nibbles) {
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(load_128(table)), nibbles);
}

template <Element kElement>
struct Quad<FourBitFloats<false>, kElement> {
  static constexpr bool kThere = true;
  static constexpr int kOffset = 12;
  static constexpr size_t kBytes = 64;
  using Values = Parameters;
  static __m512i packed(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static __m512i codes_of(__m512i nibbles) { return look_up_quad(kDoubledE2M1, nibbles); }
  static void parameters(const RawMatmul& m, const Rows& rows, size_t g0, Parameters& out) {
    FourBitFloats<false>::parameters(m, rows, g0, 8, out);
  }
  static V scales(const Parameters& of, size_t g) { return load_v(of.scales[g]); }
};

// The sixteen bytes at kAt of each of four blocks, which are a register and a tail.
template <int kBlockBytes, int kAt>
[[gnu::always_inline]] inline __m512i codes_of_blocks(const uint8_t* p) {
#ifdef __AVX512VBMI__
  constexpr int kBack = 4 * kBlockBytes - 16;
  alignas(64) static constexpr struct Places {
    uint8_t at[64];
    constexpr Places() : at() {
      for (int i = 0; i < 64; ++i) {
        const int byte = i / 16 * kBlockBytes + kAt + i % 16;
        at[i] = static_cast<uint8_t>(byte < 64 ? byte : 64 + byte - kBack);
      }
    }
  } kPlaces;
  return _mm512_permutex2var_epi8(_mm512_loadu_si512(p), _mm512_load_si512(kPlaces.at),
                                  _mm512_castsi128_si512(load_128(p + kBack)));
#else
  p += kAt;
  const __m256i low = load_halves(p, p + kBlockBytes);
  const __m256i high = load_halves(p + 2 * kBlockBytes, p + 3 * kBlockBytes);
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
#endif
}

// Eight bytes of each of eight rows, one row's after the other's, to those of one place of all rows
// after those of another.
#ifdef __AVX512VBMI__
inline __m512i transposed_bytes(__m512i rows) {
  alignas(64) static constexpr struct Places {
    uint8_t at[64];
    constexpr Places() : at() {
      for (int i = 0; i < 64; ++i) at[i] = static_cast<uint8_t>(i % 8 * 8 + i / 8);
    }
  } kPlaces;
  return _mm512_permutexvar_epi8(_mm512_load_si512(kPlaces.at), rows);
}
// Whole scales of eight groups of each of eight rows, times the rows' steps.
inline void store_scales(V steps, __m512i rows, Parameters& out) {
  const __m512 twice = _mm512_broadcast_f32x8(steps.v);
  alignas(64) uint8_t bytes[64];
  _mm512_store_si512(bytes, transposed_bytes(rows));
#pragma GCC unroll 4
  for (int pair = 0; pair < 4; ++pair) {
    const __m512 whole = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load_128(bytes + pair * 16)));
    _mm512_storeu_ps(out.scales[2 * pair], _mm512_mul_ps(twice, whole));
  }
}
#endif

template <int kBlockBytes, bool kMinimum, Element kElement>
struct Quad<SmallBlocks<kBlockBytes, 4, kMinimum>, kElement> {
  static constexpr bool kThere = true;
  static constexpr int kOffset = kMinimum ? 0 : 8;
  static constexpr size_t kBytes = 4 * kBlockBytes;
  static __m512i codes_of(__m512i nibbles) { return nibbles; }
#ifdef __AVX512VBMI__
  // Permutations of bytes put the scales of each row into its places in all four groups.
  using Values = Halves;
  static __m512i packed(const uint8_t* p) {
    return codes_of_blocks<kBlockBytes, kMinimum ? 4 : 2>(p);
  }
  static void parameters(const RawMatmul&, const Rows& rows, size_t g0, Halves& out) {
#pragma GCC unroll 2
    for (size_t half = 0; half < 2; ++half) {
      const size_t at = (g0 + half * 4) * kBlockBytes;
      put(spread<0>(rows, at), out.bytes + half * 4, 0);
      if constexpr (kMinimum) put(spread<2>(rows, at), out.bytes + half * 4, 16);
    }
  }
  static V scales(const Halves& of, size_t g) { return load_8(kElementF16, of.bytes[g]); }
  static V biases(const Halves& of, size_t g) { return load_8(kElementF16, of.bytes[g] + 16); }

 private:
  // In quarter g the f16 at kAt in block g of each of eight rows, two rows at a time.
  template <int kAt>
  static __m512i spread(const Rows& rows, size_t at) {
    alignas(64) static constexpr struct Places {
      uint8_t at[64];
      constexpr Places() : at() {
        for (int i = 0; i < 64; ++i)
          at[i] = static_cast<uint8_t>(i / 16 * kBlockBytes + kAt + i % 2 + i % 4 / 2 * 64);
      }
    } kPlaces;
    const __m512i places = _mm512_load_si512(kPlaces.at);
    const auto two = [&](int i) __attribute__((always_inline)) {
      return _mm512_maskz_permutex2var_epi8(0x000f000f000f000fu << 2 * i,
                                            _mm512_loadu_si512(rows.weight[i] + at), places,
                                            _mm512_loadu_si512(rows.weight[i + 1] + at));
    };
    return _mm512_or_si512(_mm512_or_si512(two(0), two(2)), _mm512_or_si512(two(4), two(6)));
  }
  static void put(__m512i quarters, uint8_t (*out)[32], size_t at) {
    const auto store = [&](size_t g, __m128i v) {
      _mm_store_si128(reinterpret_cast<__m128i*>(out[g] + at), v);
    };
    store(0, _mm512_castsi512_si128(quarters));
    store(1, _mm512_extracti32x4_epi32(quarters, 1));
    store(2, _mm512_extracti32x4_epi32(quarters, 2));
    store(3, _mm512_extracti32x4_epi32(quarters, 3));
  }
#else
  using Values = Parameters;
  static __m512i packed(const uint8_t* p) {
    return codes_of_blocks<kBlockBytes, kMinimum ? 4 : 2>(p);
  }
  static void parameters(const RawMatmul& m, const Rows& rows, size_t g0, Parameters& out) {
    SmallBlocks<kBlockBytes, 4, kMinimum>::parameters(m, rows, g0, 8, out);
  }
  static V scales(const Parameters& of, size_t g) { return load_v(of.scales[g]); }
  static V biases(const Parameters& of, size_t g) { return load_v(of.biases[g]); }
#endif
};

template <Element kElement>
struct Quad<IQ4NL, kElement> : Quad<SmallBlocks<18, 4, false>, kElement> {
  static __m512i codes_of(__m512i nibbles) { return look_up_quad(kIq4Codes, nibbles); }
};

template <Element kElement>
struct Quad<IQ4XS, kElement> {
  static constexpr bool kThere = true;
  static constexpr size_t kBytes = 72;  // and eight before each block's first
  using Values = Parameters;
  static constexpr size_t at(size_t quad) { return quad / 2 * IQ4XS::kBytes + 8 + quad % 2 * 64; }
  static __m512i packed(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static __m512i codes_of(__m512i nibbles) { return look_up_quad(kIq4Codes, nibbles); }
  static void parameters([[maybe_unused]] const RawMatmul& m, const Rows& rows, size_t g0,
                         Parameters& out) {
#ifdef __AVX512VBMI__
    __m512i heads = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i)
      heads = _mm512_mask_broadcastq_epi64(heads, static_cast<__mmask8>(1 << i),
                                           _mm_loadl_epi64(reinterpret_cast<const __m128i*>(
                                               rows.weight[i] + g0 / 8 * IQ4XS::kBytes)));
    store_scales({_mm256_cvtph_ps(_mm512_cvtepi64_epi16(heads))}, whole_scales(heads), out);
#else
    IQ4XS::parameters(m, rows, g0, 8, out);
#endif
  }
  static V scales(const Parameters& of, size_t g) { return load_v(of.scales[g]); }

#ifdef __AVX512VBMI__
 private:
  // As IQ4XS::scale_bytes, of eight rows.
  static __m512i whole_scales(__m512i heads) {
    const auto apart = [](__m512i v, int by, int64_t mask) __attribute__((always_inline)) {
      return _mm512_and_si512(_mm512_or_si512(v, _mm512_slli_epi64(v, static_cast<unsigned>(by))),
                              _mm512_set1_epi64(mask));
    };
    __m512i low = _mm512_srli_epi64(heads, 32);
    low = apart(low, 16, 0x0000ffff0000ffff);
    low = apart(low, 8, 0x00ff00ff00ff00ff);
    low = apart(low, 4, 0x0f0f0f0f0f0f0f0f);
    __m512i high = _mm512_and_si512(_mm512_srli_epi64(heads, 16), _mm512_set1_epi64(0xffff));
    high = apart(high, 24, 0x000000ff000000ff);
    high = apart(high, 12, 0x000f000f000f000f);
    high = apart(high, 6, 0x0303030303030303);
    return _mm512_sub_epi8(_mm512_or_si512(low, _mm512_slli_epi64(high, 4)), _mm512_set1_epi8(32));
  }
#endif
};

template <Element kElement>
struct Quad<MXFP4, kElement> {
  static constexpr bool kThere = true;
  static constexpr int kOffset = 12;
  static constexpr size_t kBytes = 4 * MXFP4::kBytes;
  static __m512i packed(const uint8_t* p) { return codes_of_blocks<MXFP4::kBytes, 1>(p); }
  static __m512i codes_of(__m512i nibbles) { return look_up_quad(kDoubledE2M1, nibbles); }
#ifdef __AVX512VBMI__
  struct Values {
    alignas(64) uint8_t bytes[64];
  };
  static void parameters(const RawMatmul&, const Rows& rows, size_t g0, Values& out) {
    alignas(64) static constexpr struct Places {
      uint8_t at[64];
      constexpr Places() : at() {
        for (size_t i = 0; i < 64; ++i)
          at[i] = static_cast<uint8_t>(i % 4 * MXFP4::kBytes + i % 8 / 4 * 64);
      }
    } kPlaces;
    const __m512i places = _mm512_load_si512(kPlaces.at);
    __m512i all = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const uint8_t* p = rows.weight[i] + g0 * MXFP4::kBytes;
      const __m512i bytes = _mm512_maskz_permutex2var_epi8(
          uint64_t{0xff} << 8 * i, _mm512_loadu_si512(p), places, _mm512_loadu_si512(p + kBytes));
      all = _mm512_or_si512(all, bytes);
    }
    _mm512_store_si512(out.bytes, transposed_bytes(all));
  }
  // As MXFP4::parameters; the largest byte reads as infinity here, and stands for 2¹²⁷.
  static V scales(const Values& of, size_t g) {
    return min_v(splat_v(0.5f) * e8m0_to_floats(word_64(of.bytes + g * 8)), splat_v(0x1p127f));
  }
#else
  using Values = Parameters;
  static void parameters(const RawMatmul& m, const Rows& rows, size_t g0, Parameters& out) {
    MXFP4::parameters(m, rows, g0, 8, out);
  }
  static V scales(const Parameters& of, size_t g) { return load_v(of.scales[g]); }
#endif
};

// Activations of four chunks: those that meet low nibbles, and those that meet high ones; and what
// the offsets of codes add to their products, taken away beforehand.
struct QuadValues {
  __m512i low, high, start;
};
template <class Q>
[[gnu::always_inline]] inline QuadValues quad_values(const uint8_t* values) {
  const __m512i a = _mm512_loadu_si512(values), b = _mm512_loadu_si512(values + 64);
  const __m512i zero = _mm512_setzero_si512();
  QuadValues x{_mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xdd), zero};
  if constexpr (Q::kOffset > 0) {
    const __m512i offset = _mm512_set1_epi8(Q::kOffset);
    x.start = _mm512_sub_epi32(
        zero, _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, offset, x.low), offset, x.high));
  }
  return x;
}

[[gnu::always_inline]] inline __m512i high_nibbles(__m512i v) {
#ifdef __GFNI__
  return _mm512_gf2p8affine_epi64_epi8(v, _mm512_set1_epi64(0x1020408000000000), 0);
#else
  return _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15));
#endif
}

// In each quarter the four partial sums of one chunk.
template <class Q>
[[gnu::always_inline]] inline __m512i dot_quad(const uint8_t* p, const QuadValues& x) {
  __m512i v = Q::packed(p);
  asm("" : "+v"(v));  // as in_register
  const __m512i low = Q::codes_of(_mm512_and_si512(v, _mm512_set1_epi8(15)));
  const __m512i high = Q::codes_of(high_nibbles(v));
  return _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(x.start, low, x.low), high, x.high);
}

inline __m512i add_neighbours(__m512i a, __m512i b) {
  return _mm512_madd_epi16(_mm512_packs_epi32(a, b), _mm512_set1_epi16(1));
}
// Sums of four lanes where they need all 32 bits: in each quarter those of four rows.
inline __m512i sums_of_four(__m512i a, __m512i b, __m512i c, __m512i d) {
  const auto added = [](__m512i x, __m512i y) __attribute__((always_inline)) {
    return _mm512_add_epi32(_mm512_unpacklo_epi32(x, y), _mm512_unpackhi_epi32(x, y));
  };
  const __m512i e = added(a, b), f = added(c, d);
  return _mm512_add_epi32(_mm512_unpacklo_epi64(e, f), _mm512_unpackhi_epi64(e, f));
}

// In each quarter the sums of four rows' chunks.
template <class Coding, class Q>
[[gnu::always_inline]] inline __m512i dot_four(const uint8_t* const* rows, size_t at,
                                               const QuadValues& x) {
  constexpr int kHighest = Coding::kCodeMax - Q::kOffset;
  constexpr int kMost =
      8 * 127 * (kHighest > Q::kOffset ? kHighest : Q::kOffset);  // of a partial sum
  const auto dot = [&](int i)
                       __attribute__((always_inline)) { return dot_quad<Q>(rows[i] + at, x); };
  static_assert(kMost <= 32767);
  const __m512i a = add_neighbours(dot(0), dot(1)), b = add_neighbours(dot(2), dot(3));
  if constexpr (2 * kMost <= 32767) {
    return add_neighbours(a, b);
  } else {
    const __m512 p = _mm512_castsi512_ps(a), q = _mm512_castsi512_ps(b);
    return _mm512_add_epi32(_mm512_castps_si512(_mm512_shuffle_ps(p, q, 0x88)),
                            _mm512_castps_si512(_mm512_shuffle_ps(p, q, 0xdd)));
  }
}

// ---- activations of 16 bits ----

// Of four chunks, one in each quarter: what meets low nibbles of even bytes, high ones, and those
// of odd bytes.
struct WideQuadValues {
  __m512i low_even, high_even, low_odd, high_odd;
};
inline WideQuadValues wide_quad_values(const uint8_t* values) {
  const auto chunk = [&](int i) { return _mm512_loadu_si512(values + i * 64); };
  const __m512i a = chunk(0), b = chunk(1), c = chunk(2), d = chunk(3);
  const __m512i e = _mm512_shuffle_i64x2(a, b, 0x44), f = _mm512_shuffle_i64x2(c, d, 0x44);
  const __m512i g = _mm512_shuffle_i64x2(a, b, 0xee), h = _mm512_shuffle_i64x2(c, d, 0xee);
  return {_mm512_shuffle_i64x2(e, f, 0x88), _mm512_shuffle_i64x2(e, f, 0xdd),
          _mm512_shuffle_i64x2(g, h, 0x88), _mm512_shuffle_i64x2(g, h, 0xdd)};
}

// Whole numbers below 16 in 16 bits straight from the packing.
[[gnu::always_inline]] inline __m512i dot_wide_quad(const uint8_t* p, const WideQuadValues& x) {
  const __m512i mask = _mm512_set1_epi16(15);
  __m512i v = _mm512_loadu_si512(p);
  asm("" : "+v"(v));  // as in_register
  __m512i sum = _mm512_dpwssd_epi32(_mm512_setzero_si512(), _mm512_and_si512(v, mask), x.low_even);
  sum = _mm512_dpwssd_epi32(sum, _mm512_and_si512(_mm512_srli_epi16(v, 4), mask), x.high_even);
  sum = _mm512_dpwssd_epi32(sum, _mm512_and_si512(_mm512_srli_epi16(v, 8), mask), x.low_odd);
  return _mm512_dpwssd_epi32(sum, _mm512_srli_epi16(v, 12), x.high_odd);
}
// And what stands in a table for four bits.
template <class Q>
[[gnu::always_inline]] inline __m512i dot_looked_up_quad(const uint8_t* p,
                                                         const WideQuadValues& x) {
  const __m512i even = _mm512_set1_epi16(0xff);
  __m512i v = Q::packed(p);
  asm("" : "+v"(v));  // as in_register
  const __m512i low = Q::codes_of(_mm512_and_si512(v, _mm512_set1_epi8(15)));
  const __m512i high = Q::codes_of(high_nibbles(v));
  __m512i sum =
      _mm512_dpwssd_epi32(_mm512_setzero_si512(), _mm512_and_si512(low, even), x.low_even);
  sum = _mm512_dpwssd_epi32(sum, _mm512_and_si512(high, even), x.high_even);
  sum = _mm512_dpwssd_epi32(sum, _mm512_srli_epi16(low, 8), x.low_odd);
  return _mm512_dpwssd_epi32(sum, _mm512_srli_epi16(high, 8), x.high_odd);
}
template <class Coding, class Q>
[[gnu::always_inline]] inline __m512i dot_wide_four(const uint8_t* const* rows, size_t at,
                                                    const WideQuadValues& x) {
  const auto dot = [&](int i) __attribute__((always_inline)) {
    if constexpr (Coding::kCodeMax > 15)
      return dot_looked_up_quad<Q>(rows[i] + at, x);
    else
      return dot_wide_quad(rows[i] + at, x);
  };
  return sums_of_four(dot(0), dot(1), dot(2), dot(3));
}

// ---- groups ----

inline I lower(__m512i v) { return {_mm512_castsi512_si256(v)}; }
inline I upper(__m512i v) { return {_mm512_extracti64x4_epi64(v, 1)}; }

// The sums of 128 / kGroup groups of eight rows, from those of four chunks.
template <int kGroup>
[[gnu::always_inline]] inline void group_sums(__m512i a, __m512i b, I* out) {
  const auto merged = [&](__m512i places) __attribute__((always_inline)) {
    return _mm512_permutex2var_epi64(a, places, b);
  };
  if constexpr (kGroup == 32) {
    const __m512i first = merged(_mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11));
    const __m512i last = merged(_mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15));
    out[0] = lower(first);
    out[1] = upper(first);
    out[2] = lower(last);
    out[3] = upper(last);
  } else {
    const __m512i sum = _mm512_add_epi32(merged(_mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13)),
                                         merged(_mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15)));
    if constexpr (kGroup == 64) {
      out[0] = lower(sum);
      out[1] = upper(sum);
    } else {
      out[0] = lower(sum) + upper(sum);
    }
  }
}

// In each quarter the sums of four rows' chunks, of rows 0 to 3 and of 4 to 7.
template <class Coding, class Q, bool kWide>
[[gnu::always_inline]] inline void dot_eight(const Rows& rows, size_t at, const uint8_t* values,
                                             __m512i& first, __m512i& last) {
  if constexpr (kWide) {
    const WideQuadValues x = wide_quad_values(values);
    first = dot_wide_four<Coding, Q>(rows.weight, at, x);
    last = dot_wide_four<Coding, Q>(rows.weight + 4, at, x);
  } else {
    const QuadValues x = quad_values<Q>(values);
    first = dot_four<Coding, Q>(rows.weight, at, x);
    last = dot_four<Coding, Q>(rows.weight + 4, at, x);
  }
}

// Whole eights of groups.
template <class Coding, bool kWide, int kGroup, Element kElement>
size_t multiply_quads(const RawMatmul& m, const Rows& rows, size_t t, V& y) {
  using Q = Quad<Coding, kElement>;
  constexpr size_t kGroups = 128 / kGroup, kValueBytes = (kWide ? 8 : 4) * kChunk;
  const size_t whole = m.groups / 8 * 8;
  const uint8_t* token = m.prepared + t * m.prepared_stride;
  typename Q::Values parameters;
  size_t quad = 0;
  for (size_t g0 = 0; g0 < whole; g0 += 8) {
    Q::parameters(m, rows, g0, parameters);
    if (g0 % kScaleGroups == 0 && m.scale_stride > 0)
      fetch_scales(rows, g0 * m.scale_stride / m.groups);
#pragma GCC unroll 1
    for (size_t g = 0; g < 8; g += kGroups, ++quad) {
      const size_t at = quad_at<Q>(quad);
      fetch_weights<Coding, kInSmallBlocks<Coding>>(m, rows, at, Q::kBytes);
      __m512i first, last;
      dot_eight<Coding, Q, kWide>(rows, at, token + quad * kValueBytes, first, last);
      I sums[kGroups];
      group_sums<kGroup>(first, last, sums);
#pragma GCC unroll 4
      for (size_t i = 0; i < kGroups; ++i) {
        const TokenGroup group = token_group(m, token, g0 + g + i);
        if constexpr (Coding::kBias)
          y = fold<true>(y, sums[i], Q::scales(parameters, g + i), Q::biases(parameters, g + i),
                         group);
        else if constexpr (kWide)  // offsets are still in the sums
          y = fold<false>(y, sums[i], Q::scales(parameters, g + i), splat_v(0), group);
        else
          y = fma_v(Q::scales(parameters, g + i) * splat_v(group.scale), to_floats(sums[i]), y);
      }
    }
  }
  return whole;
}

// Wide where codes are the nibbles themselves, in MLX's order, and where they go no other way.
template <class Coding, bool kWide>
constexpr bool kInQuads = Quad<Coding, kElementF16>::kThere && !kWide && Coding::kCodeMax <= 63;
template <>
constexpr bool kInQuads<Affine<4>, true> = true;
template <>
constexpr bool kInQuads<IQ4NL, true> = true;
template <>
constexpr bool kInQuads<IQ4XS, true> = true;

template <class Coding, bool kWide, int kGroup>
  requires(kInQuads<Coding, kWide> && kGroup >= 32)
struct Front<Coding, kWide, kGroup> {
  static size_t multiply(const RawMatmul& m, const Rows& rows, size_t t, V& y) {
    if constexpr (!Quad<Coding, kElementF32>::kThere) {
      if (m.element == kElementF32) return 0;
      if (m.element == kElementBF16)
        return multiply_quads<Coding, kWide, kGroup, kElementBF16>(m, rows, t, y);
    }
    return multiply_quads<Coding, kWide, kGroup, kElementF16>(m, rows, t, y);
  }
};

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
