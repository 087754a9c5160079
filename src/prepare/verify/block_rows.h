// Rows of a block as it was found in the output: their bytes, and how findings name them.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "stream/stream.h"

namespace sluice::verify {

// bytes: of `rows` equal rows.
std::span<const std::byte> row_of(std::span<const std::byte> bytes, uint64_t row, uint64_t rows);

bool equal_bytes(std::span<const std::byte> a, std::span<const std::byte> b);

// "row 5", or "expert 3, row 5"; row counts from the block's first.
std::string place_text(const stream::RowBlock& block, uint64_t row);

}  // namespace sluice::verify
