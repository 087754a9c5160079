// Little-endian numbers in byte strings, at any alignment and on any host byte order. Private to
// numerics' codecs; header only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "numerics/float_types.h"

namespace sluice::numerics {

using Bytes = const std::byte*;

inline uint8_t load_u8(Bytes at) { return static_cast<uint8_t>(*at); }
inline int8_t load_i8(Bytes at) { return static_cast<int8_t>(load_u8(at)); }

template <class T>
T load_le(Bytes at) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value |= static_cast<T>(T{load_u8(at + i)} << (8 * i));
  return value;
}

template <class T>
void store_le(T value, std::byte* at) {
  for (size_t i = 0; i < sizeof(T); ++i) at[i] = static_cast<std::byte>(value >> (8 * i));
}

inline float load_f16(Bytes at) { return f16_to_f32(load_le<uint16_t>(at)); }

}  // namespace sluice::numerics
