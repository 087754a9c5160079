#include "runtime/weight_reader.h"

#include <algorithm>

#include "io/aligned_buffer.h"

namespace sluice::runtime {
namespace {

// Reads under way in the ring. Fewer leave the disk idle between them (8: a sixth less, measured);
// more make what was asked for together arrive together, all of it late, instead of one expert
// after another, so that computing has nothing to hide behind.
constexpr size_t kUnderWayMax = 18;

// The pages of a file that a transfer touches.
struct Pages {
  uint64_t offset = 0;
  size_t bytes = 0;
};
Pages pages_of(const WeightTransfer& t) {
  return {t.offset - t.offset % io::kDirectAlignment,
          static_cast<size_t>(io::bytes_of_pages(t.offset, t.offset + t.bytes()))};
}

}  // namespace

WeightReader::WeightReader(std::shared_ptr<const io::Checkpoint> checkpoint, size_t threads,
                           std::unique_ptr<io::ReadRing> ring)
    : checkpoint_(std::move(checkpoint)), thread_count_(threads), ring_(std::move(ring)) {
  SLUICE_CHECK(threads > 0);
}

WeightReader::~WeightReader() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    jobs_.clear();
  }
  work_cond_.notify_all();
}

void WeightReader::start_threads() {
  while (threads_.size() < thread_count_) threads_.emplace_back([this] { work(); });
}

void WeightReader::count(const WeightTransfer& transfer) {
  bytes_read_.fetch_add(transfer.bytes(), std::memory_order_relaxed);
  bytes_fetched_.fetch_add(pages_of(transfer).bytes, std::memory_order_relaxed);
}

void WeightReader::give_to_threads(const Job& job) {
  {
    MutexLock lock(mutex_);
    jobs_.push_back(job);
    ++jobs_left_;
    ++job.ticket->left_;
  }
  start_threads();
  work_cond_.notify_one();
}

void WeightReader::add_to_ring(const Job& job) {
  const Pages pages = pages_of(job.transfer);
  std::byte* to = job.transfer.to - (job.transfer.offset - pages.offset);
  if (free_tags_.empty()) {
    free_tags_.push_back(static_cast<uint32_t>(ring_jobs_.size()));
    ring_jobs_.emplace_back();
  }
  const uint32_t tag = free_tags_.back();
  if (!ring_->add(*checkpoint_->files[job.transfer.file], pages.offset, to, pages.bytes, tag)) {
    --job.ticket->in_ring_;
    give_to_threads(job);
    return;
  }
  free_tags_.pop_back();
  ring_jobs_[tag] = job;
}

void WeightReader::feed_ring() {
  while (!for_ring_.empty() && ring_->under_way() < kUnderWayMax) {
    const Job job = for_ring_.front();
    for_ring_.pop_front();
    add_to_ring(job);
  }
  ring_->start();
}

void WeightReader::start(std::span<const WeightTransfer> transfers, ReadTicket& ticket) {
  SLUICE_DCHECK(ticket.in_ring_ == 0 && threads_ended(ticket));
  ticket.status_ = {};
  for (const WeightTransfer& transfer : transfers) {
    if (ring_ == nullptr || !transfer.whole_pages) {
      give_to_threads({transfer, &ticket});
      continue;
    }
    ++ticket.in_ring_;
    for_ring_.push_back({transfer, &ticket});
  }
  if (ring_ != nullptr) feed_ring();
}

// Whether all of a transfer is there, and is what it should be.
bool WeightReader::arrived(const WeightTransfer& transfer, int64_t bytes) const {
  const Pages pages = pages_of(transfer);
  const uint64_t shift = transfer.offset - pages.offset;
  if (bytes < 0 || static_cast<uint64_t>(bytes) < shift + transfer.bytes()) return false;
  const size_t came = std::min(static_cast<size_t>(bytes), pages.bytes);
  return checkpoint_->files[transfer.file]
      ->check(pages.offset, {transfer.to - shift, came})
      .has_value();
}

// One read that the ring has ended, if there is one. What came short, wrong, or not at all is read
// again by a thread, whose read can tell why.
bool WeightReader::collect(bool wait) {
  if (ring_ == nullptr) return false;
  const auto ended = ring_->next(wait);
  if (!ended) return false;
  const auto tag = static_cast<uint32_t>(ended->tag);
  const Job job = ring_jobs_[tag];
  free_tags_.push_back(tag);
  --job.ticket->in_ring_;
  if (arrived(job.transfer, ended->bytes))
    count(job.transfer);
  else
    give_to_threads({job.transfer, job.ticket, true});
  feed_ring();
  return true;
}

bool WeightReader::threads_ended(const ReadTicket& ticket) {
  MutexLock lock(mutex_);
  return ticket.left_ == 0;
}

Status WeightReader::finish(ReadTicket& ticket) {
  while (ticket.in_ring_ > 0) collect(true);
  MutexLock lock(mutex_);
  while (ticket.left_ > 0) done_cond_.wait(mutex_);
  return ticket.status_;
}

void WeightReader::drain() {
  while (ring_ != nullptr && (ring_->under_way() > 0 || !for_ring_.empty())) collect(true);
  MutexLock lock(mutex_);
  while (jobs_left_ > 0) done_cond_.wait(mutex_);
}

void WeightReader::submit(std::span<const WeightTransfer> transfers, ReadTicket& ticket) {
  if (trace_ != nullptr) {
    traced_[&ticket] = trace_->tickets;
    trace_->events.push_back({trace_->tickets++, static_cast<uint32_t>(trace_->transfers.size()),
                              static_cast<uint32_t>(transfers.size())});
    trace_->transfers.insert(trace_->transfers.end(), transfers.begin(), transfers.end());
    for (const WeightTransfer& transfer : transfers) trace_->bytes += transfer.bytes();
  }
  start(transfers, ticket);
}

Status WeightReader::wait(ReadTicket& ticket) {
  if (trace_ != nullptr) {
    const auto found = traced_.find(&ticket);
    if (found != traced_.end()) {
      trace_->events.push_back({found->second, 0, 0});
      traced_.erase(found);
    }
  }
  return finish(ticket);
}

bool WeightReader::ended(const ReadTicket& ticket) {
  while (collect(false)) {
  }
  return ticket.in_ring_ == 0 && threads_ended(ticket);
}

void WeightReader::wait_any(std::span<ReadTicket* const> tickets) {
  const auto in_ring = [](const ReadTicket* ticket) { return ticket->in_ring_ > 0; };
  const auto with_threads = [](const ReadTicket* ticket) { return ticket->left_ > 0; };
  for (;;) {
    while (collect(false)) {
    }
    {
      MutexLock lock(mutex_);
      for (;;) {
        for (const ReadTicket* ticket : tickets)
          if (!in_ring(ticket) && !with_threads(ticket)) return;
        if (std::ranges::any_of(tickets, in_ring)) break;
        done_cond_.wait(mutex_);
      }
    }
    collect(true);
  }
}

bool WeightReader::take(Job& job) {
  MutexLock lock(mutex_);
  while (jobs_.empty() && !stopping_) work_cond_.wait(mutex_);
  if (stopping_) return false;
  job = jobs_.front();
  jobs_.pop_front();
  return true;
}

void WeightReader::end(const Job& job, Status status) {
  count(job.transfer);
  MutexLock lock(mutex_);
  if (!status && job.ticket->status_) job.ticket->status_ = std::move(status);
  --jobs_left_;
  if (--job.ticket->left_ == 0) done_cond_.notify_all();
}

// What the ring brought wrongly is read with all of its pages: their other bytes are of use too.
Status WeightReader::run(const Job& job, TransferBuffers& buffers) const {
  const WeightTransfer& transfer = job.transfer;
  if (!job.again) return run_transfer(*checkpoint_, transfer, buffers);
  const io::ByteSource& source = *checkpoint_->files[transfer.file];
  const Pages pages = pages_of(transfer);
  const uint64_t end = std::max(transfer.offset + transfer.bytes(),
                                std::min<uint64_t>(pages.offset + pages.bytes, source.size()));
  return source.read_at(pages.offset, {transfer.to - (transfer.offset - pages.offset),
                                       static_cast<size_t>(end - pages.offset)});
}

void WeightReader::work() {
  TransferBuffers buffers;
  Job job{};
  while (take(job)) end(job, run(job, buffers));
}

void WeightReader::record(ReadTrace* trace) {
  drain();
  trace_ = trace;
  traced_.clear();
}

Status WeightReader::replay(const ReadTrace& trace) {
  SLUICE_CHECK(trace_ == nullptr);
  drain();
  const auto tickets = std::make_unique<ReadTicket[]>(trace.tickets);
  Status status;
  const auto finish_one = [&](uint32_t ticket) {
    Status ended = finish(tickets[ticket]);
    if (status) status = std::move(ended);
  };
  for (const ReadTrace::Event& event : trace.events) {
    if (event.count == 0)
      finish_one(event.ticket);
    else
      start(std::span(trace.transfers).subspan(event.first, event.count), tickets[event.ticket]);
  }
  for (uint32_t ticket = 0; ticket < trace.tickets; ++ticket) finish_one(ticket);
  return status;
}

}  // namespace sluice::runtime
