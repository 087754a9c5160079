// The models that clients may ask for by name: which of them are in memory, who waits for one that
// is not, and which one leaves so that it can come. How a model is opened, and whether it fits
// beside others, is told by a function of the caller's, which a thread of the registry's own runs.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/thread.h"
#include "server/served_model.h"

namespace sluice::server {

// While one is held, its model stays in memory.
using ModelLease = std::shared_ptr<ServedModel>;
// Brings a model into memory. held_bytes: what those that are there were promised, 0 when there are
// none. kExhausted: it does not fit beside them, and may when one of them leaves.
using LoadModel = std::function<Result<ModelLease>(size_t index, uint64_t held_bytes)>;

// Totals since the start, of models that have left too, and how things stand.
struct RegistryState {
  SchedulerState scheduler;  // summed over all; waiting requests counted as queued
  uint64_t loads = 0;
  std::vector<size_t> loaded;  // indices
};

// The loop's thread, but for attach()'s function, which is called from any.
class ModelRegistry {
 public:
  using Post = std::function<void(std::function<void()>)>;  // runs it on the loop's thread, later
  using Ready = std::function<void(Result<ModelLease> model)>;

  // cards: at least one; names and aliases all differ. waiting_max: requests that wait for models.
  ModelRegistry(std::vector<ModelCard> cards, LoadModel load, size_t waiting_max);
  ~ModelRegistry();
  ModelRegistry(const ModelRegistry&) = delete;
  ModelRegistry& operator=(const ModelRegistry&) = delete;

  // Before the first request.
  void attach(Post post) { post_ = std::move(post); }
  // A model that was loaded by the caller.
  void adopt(size_t index, ModelLease model);

  size_t size() const { return entries_.size(); }
  const ModelCard& card(size_t index) const { return entries_[index].card; }
  // Empty: the first model.
  std::optional<size_t> find(std::string_view name) const;
  // The model where it is in memory and stays; else null. Looking does not count as use.
  const ServedModel* loaded(size_t index) const { return entries_[index].model.get(); }

  // The model where it is there at once; else null, and await() is to be asked.
  ModelLease lease(size_t index);
  // Has the model brought; ready is called once, unless forget() comes first. Those that are in
  // memory leave, the least recently used first, when it does not fit beside them: they finish what
  // they answer, and whoever asks for them meanwhile waits. Models are brought in the order in
  // which they were asked for. Returns a ticket. Errors: kExhausted when too many wait, kCancelled
  // behind drain(); of ready: what was wrong with loading, as kIo.
  Result<uint64_t> await(size_t index, Ready ready);
  void forget(uint64_t ticket);
  // Goes on with what is to be done; some ten times a second.
  void advance();

  // Those who wait are refused, and no model takes a job any more.
  void drain();
  // Waits for a load that is under way; no function is posted any more, and no model calls back.
  void stop();
  RegistryState state() const;

 private:
  struct Waiter {
    uint64_t ticket;
    Ready ready;
  };
  struct Entry {
    ModelCard card;
    ModelLease model;   // null: not in memory
    uint64_t used = 0;  // the turn in which it was last leased
    std::vector<Waiter> waiting;
  };

  void serve(Entry& entry);
  void refuse(Entry& entry, const Error& error);
  void load(size_t index);
  void arrived(size_t index, Result<ModelLease> model);
  std::optional<size_t> least_recently_used() const;
  void unload(size_t index);
  void run_beside(std::function<void()> work, std::function<void()> done);
  size_t waiting() const;

  std::vector<Entry> entries_;
  const LoadModel load_;
  const size_t waiting_max_;
  Post post_;
  std::deque<size_t> wanted_;      // entries that are waited for, each once
  std::optional<size_t> leaving_;  // gives no leases, so that it can make room
  bool busy_ = false;              // the thread has work
  bool draining_ = false, stopped_ = false;
  uint64_t next_ticket_ = 1, turn_ = 0, loads_ = 0;
  SchedulerState gone_;  // totals of models that have left
  BoundedQueue<std::function<void()>> work_{1};
  Thread thread_;  // last
};

}  // namespace sluice::server
