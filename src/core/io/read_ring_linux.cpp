// io_uring by liburing.
#include <liburing.h>

#include <cerrno>
#include <system_error>
#include <vector>

#include "io/posix.h"
#include "io/read_ring.h"

namespace sluice::io {
namespace {

class LinuxRing : public ReadRing {
 public:
  static Result<std::unique_ptr<ReadRing>> make(unsigned depth) {
    std::unique_ptr<LinuxRing> made(new LinuxRing(depth));
    const int error = -io_uring_queue_init(depth, &made->ring_, 0);
    if (error != 0)
      return fail(ErrorCode::kUnsupported, "io_uring: {}", std::generic_category().message(error));
    made->open_ = true;
    return made;
  }

  ~LinuxRing() override {
    if (!open_) return;
    while (collect(true)) {
    }
    io_uring_queue_exit(&ring_);
  }

  bool add(const ByteSource& source, uint64_t offset, std::byte* to, size_t bytes,
           uint64_t tag) override {
    if (broken_ || free_.empty()) return false;
    auto descriptor = source.direct_descriptor();
    if (descriptor == nullptr) return false;
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    if (entry == nullptr) return false;
    const uint32_t place = free_.back();
    free_.pop_back();
    io_uring_prep_read(entry, descriptor->get(), to, static_cast<unsigned>(bytes), offset);
    io_uring_sqe_set_data64(entry, place);
    reads_[place] = {std::move(descriptor), tag};
    added_.push_back(place);
    return true;
  }

  void start() override {
    size_t begun = 0;
    while (begun < added_.size()) {
      const int done = io_uring_submit(&ring_);
      if (done >= 0) {
        begun += static_cast<size_t>(done);
        in_kernel_ += static_cast<size_t>(done);
      } else if (done != -EINTR && !collect(true)) {
        // Short of room with nothing under way that could make some, or worse.
        broken_ = true;
        for (size_t i = begun; i < added_.size(); ++i) end(added_[i], done);
        break;
      }
    }
    added_.clear();
  }

  std::optional<Ended> next(bool wait) override {
    if (parked_.empty() && !collect(wait)) return std::nullopt;
    const Ended ended = parked_.back();
    parked_.pop_back();
    return ended;
  }

  size_t under_way() const override { return in_kernel_ + added_.size() + parked_.size(); }

 private:
  struct Read {
    std::shared_ptr<const FileDescriptor> descriptor;  // open as long as the kernel reads
    uint64_t tag = 0;
  };

  explicit LinuxRing(unsigned depth) : reads_(depth) {
    for (uint32_t i = 0; i < depth; ++i) free_.push_back(i);
  }

  void end(uint32_t place, int64_t bytes) {
    parked_.push_back({reads_[place].tag, bytes});
    reads_[place].descriptor.reset();
    free_.push_back(place);
  }

  // Takes one that has ended out of the kernel's queue; false: there is none.
  bool collect(bool wait) {
    if (in_kernel_ == 0) return false;
    io_uring_cqe* entry = nullptr;
    int error;
    do {
      error = wait ? io_uring_wait_cqe(&ring_, &entry) : io_uring_peek_cqe(&ring_, &entry);
    } while (error == -EINTR);
    if (error != 0 || entry == nullptr) return false;
    end(static_cast<uint32_t>(io_uring_cqe_get_data64(entry)), entry->res);
    io_uring_cqe_seen(&ring_, entry);
    --in_kernel_;
    return true;
  }

  io_uring ring_{};
  bool open_ = false, broken_ = false;
  std::vector<Read> reads_;
  std::vector<uint32_t> free_, added_;  // indices of reads_
  std::vector<Ended> parked_;
  size_t in_kernel_ = 0;
};

}  // namespace

Result<std::unique_ptr<ReadRing>> make_read_ring(unsigned depth) { return LinuxRing::make(depth); }

}  // namespace sluice::io
