#include "gpu/mlx_memory.h"

#include <unistd.h>

#include "base/checked.h"
#include "base/units.h"

namespace sluice::gpu {

Result<runtime::PageMemory> MlxMemory::reserve(size_t bytes, std::string_view what) const {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  try {
    // Its shape is never looked at: views have their own.
    mx::array buffer(mx::allocator::malloc(bytes + page), {1}, mx::uint8);
    auto* first = reinterpret_cast<std::byte*>(buffer.data<uint8_t>());
    const size_t offset =
        align_up(reinterpret_cast<size_t>(first), page) - reinterpret_cast<size_t>(first);
    std::byte* data = first + offset;
    MutexLock lock(mutex_);
    regions_.insert_or_assign(data, Region{bytes, offset, std::move(buffer)});
    return runtime::PageMemory::borrow(data, bytes, [this, data] {
      MutexLock release_lock(mutex_);
      regions_.erase(data);
    });
  } catch (const std::exception& error) {
    return fail(ErrorCode::kExhausted, "no memory for {}: {} were refused by MLX ({})", what,
                bytes_text(bytes), error.what());
  }
}

mx::array MlxMemory::view(const std::byte* data, mx::Shape shape, mx::Dtype dtype) const {
  mx::array out(std::move(shape), dtype, nullptr, {});
  MutexLock lock(mutex_);
  auto after = regions_.upper_bound(data);
  if (after != regions_.begin()) {
    const auto& [begin, region] = *std::prev(after);
    const size_t at = region.offset + static_cast<size_t>(data - begin);
    if (data + out.nbytes() <= begin + region.bytes && at % out.itemsize() == 0) {
      mx::Strides strides(out.ndim(), 1);
      for (size_t axis = out.ndim() - 1; axis > 0; --axis)
        strides[axis - 1] = strides[axis] * out.shape(static_cast<int>(axis));
      out.copy_shared_buffer(region.buffer, strides, {true, true, out.ndim() <= 1}, out.size(),
                             static_cast<int64_t>(at / out.itemsize()));
      out.set_status(mx::array::Status::available);
      return out;
    }
  }
  return copy(data, out.shape(), dtype);
}

mx::array MlxMemory::copy(const std::byte* data, mx::Shape shape, mx::Dtype dtype) {
  mx::array out(std::move(shape), dtype, nullptr, {});
  out.set_data(mx::allocator::malloc(out.nbytes()));
  std::copy_n(data, out.nbytes(), reinterpret_cast<std::byte*>(out.data<char>()));
  out.set_status(mx::array::Status::available);
  return out;
}

}  // namespace sluice::gpu
