// A few requests at a time, where waiting for one after another would take most of the time.
#pragma once

#include <cstddef>
#include <functional>

#include "base/error.h"

namespace sluice::io {

inline constexpr size_t kRequestsAtOnce = 8;

// Calls work(i) for every i below count on up to so many threads, in order of beginning. After an
// error nothing further is begun. Errors: the first one met.
Status at_once(size_t count, const std::function<Status(size_t)>& work,
               size_t threads = kRequestsAtOnce);

}  // namespace sluice::io
