// How products in registers of 512 bits read each coding: four chunks of 32 codes of a
// row at a time, and the parameters of eight groups of eight rows. To be included after
// generic/matmul_few.h.
#pragma once

#include "kernels/generic/matmul_codings.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

// Of eight groups of eight rows the scales and biases as they are stored, in 16 bits: of each group
// its scales, then its biases.
struct Halves {
  alignas(64) uint8_t bytes[8][32];
};

inline __m512i high_nibbles(__m512i v) {
#ifdef __GFNI__
  return _mm512_gf2p8affine_epi64_epi8(v, _mm512_set1_epi64(0x1020408000000000), 0);
#else
  return _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15));
#endif
}

// Of four chunks, one in each quarter: the first sixteen of its 32 codes, and the last.
struct QuadCodes {
  __m512i low, high;
};

// Per coding: the codes of four chunks of a row in the order of their values, as packed() nibbles
// and what those stand for, kOffset above their values, or as apart() where they are no nibbles;
// and the parameters of eight groups, from which scales() and, where the coding has them, biases()
// are taken.
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
template <class Q>
[[gnu::always_inline]] inline QuadCodes quad_codes(const uint8_t* p) {
  if constexpr (requires { Q::apart(p); }) {
    return Q::apart(p);
  } else {
    __m512i v = Q::packed(p);
    asm("" : "+v"(v));  // as in_register
    return {Q::codes_of(_mm512_and_si512(v, _mm512_set1_epi8(15))), Q::codes_of(high_nibbles(v))};
  }
}

// MLX's scales and biases: rows in, groups out, both side by side.
template <int kWidth, Element kElement>
struct AffineQuad {
  static constexpr int kOffset = 0;
  static constexpr size_t kBytes = 16 * kWidth;
  using Values = Halves;
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

template <Element kElement>
struct Quad<Affine<4>, kElement> : AffineQuad<4, kElement> {
  static constexpr bool kThere = kElement != kElementF32;
  static __m512i packed(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static __m512i codes_of(__m512i nibbles) { return nibbles; }
};

// A chunk's eight bytes hold the first two bits of each place first.
template <Element kElement>
struct Quad<Affine<2>, kElement> : AffineQuad<2, kElement> {
  static constexpr bool kThere = kElement != kElementF32;
  static QuadCodes apart(const uint8_t* p) {
    const __m512i twice = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3),
                                                   _mm512_castsi256_si512(load_256(p)));
    __m512i v = _mm512_srlv_epi64(twice, _mm512_setr_epi64(0, 2, 0, 2, 0, 2, 0, 2));
    asm("" : "+v"(v));  // as in_register
    const __m512i mask = _mm512_set1_epi8(3);
    return {_mm512_and_si512(v, mask), _mm512_and_si512(_mm512_srli_epi64(v, 4), mask)};
  }
};

#ifdef __AVX512VBMI__
// Codes that cross bytes: those of every eight codes to a word of 64 bits, and from there to bytes.
template <int kWidth, Element kElement>
struct StreamQuad : AffineQuad<kWidth, kElement> {
  static constexpr bool kThere = kElement != kElementF32;
  static constexpr size_t kBytes = 16 * kWidth;
  static QuadCodes apart(const uint8_t* p) {
    alignas(64) static constexpr Places kLow(0), kHigh(2 * kWidth);
    if constexpr (kBytes <= 64) {
      constexpr __mmask64 kThem = ~uint64_t{0} >> (64 - kBytes);
      const __m512i v = _mm512_maskz_loadu_epi8(kThem, p);
      return {bytes_of(_mm512_permutexvar_epi8(_mm512_load_si512(kLow.at), v)),
              bytes_of(_mm512_permutexvar_epi8(_mm512_load_si512(kHigh.at), v))};
    } else {
      const __m512i a = _mm512_loadu_si512(p);
      const __m512i b = _mm512_loadu_si512(p + kBytes - 64);
      return {bytes_of(_mm512_permutex2var_epi8(a, _mm512_load_si512(kLow.at), b)),
              bytes_of(_mm512_permutex2var_epi8(a, _mm512_load_si512(kHigh.at), b))};
    }
  }

 private:
  // Of the eight words the bytes, two words of each chunk from `first` on.
  struct Places {
    uint8_t at[64];
    constexpr explicit Places(int first) : at() {
      for (int i = 0; i < 64; ++i) {
        const int in_word = i % 8 < kWidth ? i % 8 : 0;
        const int byte = i / 16 * 4 * kWidth + first + i % 16 / 8 * kWidth + in_word;
        at[i] = static_cast<uint8_t>(byte < 64 ? byte : byte - static_cast<int>(kBytes) + 128);
      }
    }
  };
  static __m512i bytes_of(__m512i words) {
    constexpr int w = kWidth;
    const __m512i from = _mm512_set1_epi64(
        int64_t{0} | int64_t{w} << 8 | int64_t{2 * w} << 16 | int64_t{3 * w} << 24 |
        int64_t{4 * w} << 32 | int64_t{5 * w} << 40 | int64_t{6 * w} << 48 | int64_t{7 * w} << 56);
    return _mm512_and_si512(_mm512_multishift_epi64_epi8(from, words),
                            _mm512_set1_epi8((1 << kWidth) - 1));
  }
};
template <Element kElement>
struct Quad<Affine<3>, kElement> : StreamQuad<3, kElement> {};
template <Element kElement>
struct Quad<Affine<6>, kElement> : StreamQuad<6, kElement> {};
#endif

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

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
