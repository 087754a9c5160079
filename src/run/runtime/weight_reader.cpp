#include "runtime/weight_reader.h"

#include <algorithm>

namespace sluice::runtime {

WeightReader::WeightReader(std::shared_ptr<const io::Checkpoint> checkpoint, size_t threads)
    : checkpoint_(std::move(checkpoint)) {
  for (size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

WeightReader::~WeightReader() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    jobs_.clear();
  }
  work_cond_.notify_all();
}

void WeightReader::submit(std::span<const WeightTransfer> transfers, ReadTicket& ticket) {
  MutexLock lock(mutex_);
  SLUICE_DCHECK(ticket.left_ == 0);
  ticket.left_ = static_cast<uint32_t>(transfers.size());
  ticket.status_ = {};
  for (const WeightTransfer& transfer : transfers) jobs_.push_back({transfer, &ticket});
  work_cond_.notify_all();
}

Status WeightReader::wait(ReadTicket& ticket) {
  MutexLock lock(mutex_);
  while (ticket.left_ > 0) done_cond_.wait(mutex_);
  return ticket.status_;
}

bool WeightReader::ended(const ReadTicket& ticket) const {
  MutexLock lock(mutex_);
  return ticket.left_ == 0;
}

void WeightReader::wait_any(std::span<ReadTicket* const> tickets) {
  const auto ended = [](const ReadTicket* ticket) { return ticket->left_ == 0; };
  MutexLock lock(mutex_);
  while (std::ranges::none_of(tickets, ended)) done_cond_.wait(mutex_);
}

bool WeightReader::take(Job& job) {
  MutexLock lock(mutex_);
  while (jobs_.empty() && !stopping_) work_cond_.wait(mutex_);
  if (stopping_) return false;
  job = jobs_.front();
  jobs_.pop_front();
  return true;
}

void WeightReader::finish(const Job& job, Status status) {
  bytes_read_.fetch_add(job.transfer.bytes(), std::memory_order_relaxed);
  MutexLock lock(mutex_);
  if (!status && job.ticket->status_) job.ticket->status_ = std::move(status);
  if (--job.ticket->left_ == 0) done_cond_.notify_all();
}

void WeightReader::work() {
  TransferBuffers buffers;
  Job job{};
  while (take(job)) finish(job, run_transfer(*checkpoint_, job.transfer, buffers));
}

}  // namespace sluice::runtime
