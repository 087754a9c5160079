// Code books of the IQ block types: which vectors of 4 or 8 magnitudes an index stands for. An
// entry packs one vector into 16 bits, first element lowest: eight digits of 2 bits, or four of 3
// bits. What a digit means: docs/formats.md#gguf-blocks. Private to numerics.
#pragma once

#include <cstdint>

namespace sluice::numerics {

extern const uint16_t kIq2XxsBook[256];
extern const uint16_t kIq2XsBook[512];
extern const uint16_t kIq2SBook[1024];
extern const uint16_t kIq3XxsBook[256];
extern const uint16_t kIq3SBook[512];
extern const uint16_t kIq1Book[2048];  // IQ1_S and IQ1_M

}  // namespace sluice::numerics
