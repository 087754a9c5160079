#include "verify/block_rows.h"

#include <cstring>

namespace sluice::verify {

std::span<const std::byte> row_of(std::span<const std::byte> bytes, uint64_t row, uint64_t rows) {
  const uint64_t row_bytes = bytes.size() / rows;
  return bytes.subspan(row * row_bytes, row_bytes);
}

bool equal_bytes(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

std::string place_text(const stream::RowBlock& block, uint64_t row) {
  const uint64_t absolute = block.block.first_row + row;
  if (block.grid.experts == 1) return fmt::format("row {}", absolute);
  return fmt::format("expert {}, row {}", absolute / block.grid.expert_rows,
                     absolute % block.grid.expert_rows);
}

}  // namespace sluice::verify
