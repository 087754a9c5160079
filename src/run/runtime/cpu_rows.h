// Loops over the rows of a step. Private to the CPU back-end; header only.
#pragma once

#include <algorithm>
#include <cstddef>

#include "base/thread_pool.h"

namespace sluice::runtime {

// body(row) for every row. Few rows stay on the calling thread: waking another costs more than a
// row of any vector operation.
template <class Body>
void for_rows(ThreadPool& pool, size_t rows, Body&& body) {
  constexpr size_t kRowsPerItem = 4;
  if (rows <= kRowsPerItem || pool.threads() == 1) {
    for (size_t row = 0; row < rows; ++row) body(row);
    return;
  }
  pool.run((rows + kRowsPerItem - 1) / kRowsPerItem, [&](size_t item, size_t) {
    const size_t end = std::min(rows, (item + 1) * kRowsPerItem);
    for (size_t row = item * kRowsPerItem; row < end; ++row) body(row);
  });
}

}  // namespace sluice::runtime
