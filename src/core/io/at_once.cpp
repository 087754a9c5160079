#include "io/at_once.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <vector>

#include "base/mutex.h"
#include "base/thread.h"

namespace sluice::io {

Status at_once(size_t count, const std::function<Status(size_t)>& work, size_t threads) {
  std::atomic<size_t> next{0};
  Mutex mutex;
  std::optional<Error> error;
  const auto work_on = [&] {
    for (size_t i = next++; i < count; i = next++) {
      auto status = work(i);
      if (status) continue;
      MutexLock lock(mutex);
      if (!error) error = std::move(status).error();
      next = count;
    }
  };
  {
    std::vector<Thread> running;
    for (size_t t = 0; t < std::min(count, threads); ++t) running.emplace_back(work_on);
  }
  if (error) return std::unexpected(std::move(*error));
  return {};
}

}  // namespace sluice::io
