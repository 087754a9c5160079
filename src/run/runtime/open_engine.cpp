// Opening a model: everything is planned and added up from headers first, held against the memory
// there is, and only then read.
#include <algorithm>
#include <map>

#include "base/checked.h"
#include "base/machine.h"
#include "base/units.h"
#include "io/descriptor_cache.h"
#include "io/page_digests.h"
#include "io/storage.h"
#include "runtime/engine_state.h"

namespace sluice::runtime {
namespace {

using families::Role;

constexpr size_t kContextMax = size_t{1} << 26;
constexpr size_t kChunkRowsMin = 16;
constexpr uint64_t kSidecarBytesMax = 256 << 20;
// Left to others when weights take all that a machine has to spare.
constexpr uint64_t kReserveBytes = 256'000'000;
// What reading beside computing takes: threads, and memory in which rows are rearranged.
constexpr uint64_t kReadingBytes = 8'000'000;

std::vector<uint32_t> token_ids(const Json& config, std::string_view key) {
  const Json* value = json_find(config, key);
  std::vector<uint32_t> ids;
  if (value == nullptr) return ids;
  const Json list = value->is_array() ? *value : Json::array({*value});
  for (const Json& id : list)
    if (id.is_number_unsigned() && id <= UINT32_MAX) ids.push_back(id.get<uint32_t>());
  return ids;
}

// What generation_config.json says, else config.json.
std::vector<uint32_t> special_ids(const io::Checkpoint& checkpoint, std::string_view key) {
  std::vector<uint32_t> ids = token_ids(checkpoint.generation_config, key);
  if (ids.empty()) ids = token_ids(checkpoint.config, key);
  return ids.empty() ? token_ids(families::text_config(checkpoint.config), key) : ids;
}

ModelInfo describe(const io::Checkpoint& checkpoint, const model::ModelConfig& config,
                   const WeightStore& weights) {
  ModelInfo info;
  info.path = checkpoint.path;
  info.family = config.family;
  std::map<std::string, uint64_t> by_storage;
  for (const WeightEntry& entry : weights.entries()) {
    info.parameters += entry.elements();
    info.weight_bytes += entry.bytes();
    by_storage[entry.storage] += entry.bytes();
    const bool looked_up = entry.role == Role::kEmbedding && !config.tied;
    if (looked_up) continue;
    info.read_bytes_token +=
        entry.experts == 1 ? entry.bytes() : entry.bytes() / entry.experts * config.router.top_k;
  }
  info.storage =
      std::ranges::max_element(by_storage, {}, [](const auto& pair) { return pair.second; })->first;
  info.compat = config.compat;
  info.layers = config.dims.layers;
  info.hidden_size = config.dims.hidden_size;
  info.vocabulary = config.dims.vocab_size;
  info.context_model = config.max_position_embeddings;
  info.identity = checkpoint.identity_digest();
  info.eos = special_ids(checkpoint, "eos_token_id");
  const std::vector<uint32_t> bos = special_ids(checkpoint, "bos_token_id");
  if (!bos.empty()) info.bos = bos.front();
  info.notes = weights.notes();
  return info;
}

uint64_t kv_blocks(size_t context, size_t sessions) {
  return (context + kKvBlockTokens - 1) / kKvBlockTokens * uint64_t{sessions};
}

size_t default_context(uint64_t context_model) {
  return context_model == 0
             ? kContextDefaultMax
             : static_cast<size_t>(std::min<uint64_t>(context_model, kContextDefaultMax));
}

}  // namespace

// Free functions cannot name the private State; this one can.
struct EngineOpener {
  static Status choose_backend(const model::ModelConfig& config, Engine::State& state);
  static Status choose_states(Engine::State& state);
  static Status choose_context(const model::ModelConfig& config, Engine::State& state);
  static void choose_rows(Engine::State& state);
  static Status choose_weights(Engine::State& state);
  static void choose_reads(const Engine::State& state);
  static Status verify_reads(Engine::State& state, Log& log, Progress& progress);
  static int64_t spare_bytes(const Engine::State& state);
};

Status EngineOpener::choose_backend(const model::ModelConfig& config, Engine::State& state) {
  const EngineOptions& options = state.options;
  if (options.device == nullptr) {
    auto processor = std::make_unique<CpuBackend>(*state.weights, options.simd, options.activations,
                                                  *state.pool);
    state.processor = processor.get();
    state.backend = std::move(processor);
    return {};
  }
  SLUICE_TRY(options.device->check(config, *state.weights, options));
  state.weights->take_memory_from(&options.device->memory());
  state.backend = options.device->make(*state.weights, options);
  state.info.device = options.device->name();
  return {};
}

Status EngineOpener::choose_states(Engine::State& state) {
  const StateShape& shape = state.limits.state;
  const auto slots = checked_mul(uint64_t{state.options.sessions_max}, kStatesOfSession);
  const auto bytes = slots ? checked_mul(*slots, shape.bytes()) : std::nullopt;
  if (!bytes || *bytes > UINT64_MAX / 4 || *slots > UINT32_MAX)
    return fail(ErrorCode::kExhausted, "the recurrent states of {} sessions cannot be addressed",
                state.options.sessions_max);
  state.need.states = *bytes;
  state.info.state_bytes = shape.bytes();
  return {};
}

Status EngineOpener::choose_context(const model::ModelConfig& config, Engine::State& state) {
  const families::ModelDims& dims = config.dims;
  const EngineOptions& options = state.options;
  const size_t context =
      options.context == 0 ? default_context(config.max_position_embeddings) : options.context;
  if (context > kContextMax || options.sessions_max == 0 || options.sessions_max > kContextMax)
    return fail(ErrorCode::kInvalidArgument,
                "a context of {} tokens for {} sessions is outside of [1, {}]", context,
                options.sessions_max, kContextMax);
  StepLimits& limits = state.limits;
  limits.context = context;
  limits.heads = dims.heads;
  limits.kv = {options.kv, config.caches()};
  limits.selected_max = std::min<size_t>(config.index_top_k, context);
  limits.state = {model::recurrent_sizes(config)};
  const uint64_t blocks = kv_blocks(context, options.sessions_max);
  const auto kv_bytes = checked_mul(blocks, limits.kv.block_bytes());
  if (!kv_bytes || *kv_bytes > UINT64_MAX / 4 || blocks > UINT32_MAX)
    return fail(ErrorCode::kExhausted, "{} tokens of context for {} sessions cannot be addressed",
                context, options.sessions_max);
  state.need.kv = *kv_bytes;
  SLUICE_TRY(choose_states(state));
  state.info.context = context;
  state.info.rope_length = model::rope_length(config, context);
  state.info.kv_bytes_token = limits.kv.token_bytes();
  if (state.info.context_model != 0 && context > state.info.context_model)
    state.info.notes.push_back(
        fmt::format("a context of {} tokens is more than the {} that the model was made for",
                    context, state.info.context_model));
  return {};
}

// What a chunk takes grows with its rows, and nothing in a result depends on them.
void EngineOpener::choose_rows(Engine::State& state) {
  const EngineOptions& options = state.options;
  StepLimits& limits = state.limits;
  state.need.program = std::max(resident_bytes(), options.program_bytes_min) +
                       options.program_bytes_token * limits.context +
                       options.program_bytes_word * state.info.vocabulary;
  uint64_t scratch_max = state.backend->scratch_bytes_max();
  if (options.besides_bytes_max > 0 && options.device == nullptr) {
    const uint64_t left =
        options.besides_bytes_max - std::min(options.besides_bytes_max, state.need.program);
    scratch_max = std::clamp(left, kScratchBytesMin, kScratchBytes);
  }
  limits.logits_rows = std::clamp<size_t>(kLogitsBytes / (state.info.vocabulary * sizeof(float)), 1,
                                          std::max<size_t>(options.logits_rows, 1));
  limits.rows = std::clamp<size_t>(options.chunk_tokens, 1, limits.context);
  while (limits.rows > kChunkRowsMin && state.backend->scratch_bytes(limits) > scratch_max)
    limits.rows = (limits.rows + 1) / 2;
  state.need.scratch = state.backend->scratch_bytes(limits);
  state.info.chunk_tokens = limits.rows;
}

// The tightest of the bounds on memory: what it leaves for weights beside all else, and its words.
struct MemoryBound {
  uint64_t weights = UINT64_MAX;
  uint64_t stated = 0;
  std::string_view whose;
};

MemoryBound memory_bound(const MemoryNeed& need, const EngineOptions& options) {
  const MemoryInfo machine = detect_memory();
  MemoryBound bound;
  const auto apply = [&](uint64_t stated, uint64_t program, std::string_view whose) {
    const uint64_t beside =
        need.kv + need.states + need.scratch + program + need.digests + need.draft;
    const uint64_t weights = stated - std::min(stated, beside);
    if (stated != 0 && weights < bound.weights) bound = {weights, stated, whose};
  };
  apply(options.memory_bytes_max, need.program, "--memory allows only");
  if (options.device != nullptr)
    apply(options.device->memory_bytes_max(), 0, "the GPU may use only");
  apply(machine.limit, need.program, "the cgroup of this process allows both together only");
  // What the system calls available is so beside what this process holds already.
  apply(machine.available, need.program - std::min(need.program, resident_bytes()),
        "this machine has only");
  return bound;
}

// What only some runs need.
std::string extra_text(const MemoryNeed& need) {
  std::string text;
  if (need.states > 0) text += " + recurrent states " + bytes_text(need.states);
  if (need.digests > 0) text += " + digests of pages " + bytes_text(need.digests);
  if (need.draft > 0) text += " + the draft model " + bytes_text(need.draft);
  return text;
}

// All weights in memory where that fits; else a part, and the rest is read as it is used.
Status EngineOpener::choose_weights(Engine::State& state) {
  const model::ModelConfig& config = state.model->config();
  const EngineOptions& options = state.options;
  MemoryNeed& need = state.need;
  need.digests = options.verify_reads ? io::PageDigests::bytes(state.checkpoint->files) : 0;
  ResidencyNeeds needs{.tied = config.tied,
                       .experts_per_token = config.router.top_k,
                       .window_bytes = options.window_bytes};
  SLUICE_TRY(state.weights->arrange(needs));
  MemoryBound bound = memory_bound(need, options);
  if (options.weight_bytes_max > 0 && options.weight_bytes_max < bound.weights)
    bound = {options.weight_bytes_max, options.weight_bytes_max, "weights may take only"};
  if (state.weights->memory_bytes() > bound.weights) {
    // Whoever names a limit means it; else others on this machine are left some room.
    uint64_t reserve = options.memory_bytes_max != 0 ? 0 : kReserveBytes;
    reserve = options.weight_bytes_max != 0 ? 0 : reserve + kReadingBytes;
    needs.bytes_max = bound.weights - std::min(bound.weights, reserve);
    need.program += kReadingBytes;
    if (!state.weights->arrange(needs)) {
      need.weights = state.weights->memory_bytes_min(needs);
      return fail(
          ErrorCode::kInvalidArgument,
          "{}: running it takes at least {} = weights {}, most of them read again for every "
          "token, + keys and values {} ({} tokens) + scratch {}{}, and the program itself {}, "
          "but {} {}; a smaller context, or smaller keys and values, would help",
          state.info.path, bytes_text(need.total() - need.program), bytes_text(need.weights),
          bytes_text(need.kv), state.info.context, bytes_text(need.scratch), extra_text(need),
          bytes_text(need.program), bound.whose, bytes_text(bound.stated));
    }
  }
  need.weights = state.weights->memory_bytes();
  state.info.disk_bytes_token = state.weights->residency().disk_bytes_token;
  state.info.experts_there = state.weights->residency().experts_there;
  return {};
}

// "2.1 GB of 17 GB of weights stay in memory; …"
std::string stream_note(const ModelInfo& info, const Residency& residency) {
  std::string text = fmt::format("{} of {} of weights are kept in memory",
                                 bytes_text(residency.bytes()), bytes_text(info.weight_bytes));
  if (!residency.groups.empty())
    text += fmt::format(", with {:.0f} % of the experts at a time", residency.experts_there * 100);
  return text + fmt::format("; about {} are read from disk for each token",
                            bytes_text(residency.disk_bytes_token));
}

// A model that the page cache can hold as well is read through it, so that the next start finds it
// there; a larger one would push out everything else and still not be there. One that does not fit
// into its memory may not take more of it by way of the cache.
void EngineOpener::choose_reads(const Engine::State& state) {
  if (state.checkpoint->descriptors == nullptr) return;  // in memory
  using Pages = io::DescriptorCache::Pages;
  if (!state.weights->residency().all_stay())
    return state.checkpoint->descriptors->set_pages(Pages::kLeftOut);
  const MemoryInfo machine = detect_memory();
  uint64_t room = machine.available;
  if (machine.limit != 0) room = std::min(room, machine.limit);
  uint64_t wanted = state.need.total();
  for (const auto& file : state.checkpoint->files) wanted += file->size();
  if (wanted <= room / 4 * 3) state.checkpoint->descriptors->set_pages(Pages::kKept);
}

// From now on weights come from files whose every read is checked.
Status EngineOpener::verify_reads(Engine::State& state, Log& log, Progress& progress) {
  const io::Checkpoint& checkpoint = *state.checkpoint;
  const auto storage = io::local_storage();
  std::shared_ptr<io::PageDigests> digests;
  for (const std::string& path : state.digest_paths) {
    if (digests != nullptr || !storage->exists(path)) continue;
    const auto source = storage->open_source(path);
    auto kept = source ? io::PageDigests::load(**source, checkpoint.files, state.info.identity)
                       : std::unexpected(source.error());
    if (kept)
      digests = std::make_shared<io::PageDigests>(std::move(*kept));
    else
      log.warn(kept.error().message);
  }
  if (digests == nullptr) {
    uint64_t bytes = 0;
    for (const auto& file : checkpoint.files) bytes += file->size();
    log.info(fmt::format(
        "all {} of the model's files are read once now, to take digests of their pages ({})",
        bytes_text(bytes), bytes_text(state.need.digests)));
    SLUICE_ASSIGN(auto taken, io::PageDigests::take(checkpoint.files, *state.pool, progress));
    digests = std::make_shared<io::PageDigests>(std::move(taken));
    for (const std::string& path : state.digest_paths) {
      if (!digests->save(*storage, path, checkpoint.files, state.info.identity)) continue;
      log.info(fmt::format("the digests are kept in {} for the next run", path));
      break;
    }
  }
  auto verified = std::make_shared<io::Checkpoint>();  // reading rows takes no more than files
  verified->path = checkpoint.path;
  for (size_t file = 0; file < checkpoint.files.size(); ++file)
    verified->files.push_back(io::verified_source(checkpoint.files[file], digests, file));
  state.weights->read_from(std::move(verified));
  return {};
}

Result<std::shared_ptr<Engine>> Engine::plan(const std::string& path, const EngineOptions& options,
                                             ThreadPool& pool) {
  SLUICE_ASSIGN(auto checkpoint, io::open_checkpoint(path));
  return plan(std::move(checkpoint), options, pool);
}

Result<std::shared_ptr<Engine>> Engine::plan(std::shared_ptr<const io::Checkpoint> checkpoint,
                                             const EngineOptions& options, ThreadPool& pool) {
  auto state = std::make_unique<State>();
  state->options = options;
  state->pool = &pool;
  state->checkpoint = std::move(checkpoint);
  SLUICE_ASSIGN(const families::ModelMap map,
                families::map_model(*state->checkpoint, "", {}, families::Arrangement::kAsStored));
  SLUICE_ASSIGN(const model::ModelConfig config,
                model::read_config(*state->checkpoint, map, options.compat));
  SLUICE_ASSIGN(state->weights, WeightStore::plan(state->checkpoint, map));
  state->info = describe(*state->checkpoint, config, *state->weights);
  SLUICE_TRY(EngineOpener::choose_context(config, *state));
  SLUICE_TRY(EngineOpener::choose_backend(config, *state));
  state->model = std::make_unique<model::Model>(config, *state->backend, state->limits.context);
  EngineOpener::choose_rows(*state);
  SLUICE_TRY(EngineOpener::choose_weights(*state));
  return std::shared_ptr<Engine>(new Engine(std::move(state)));
}

Status Engine::load(Log& log, Progress& progress) {
  State& s = *state_;
  SLUICE_CHECK(s.kv == nullptr);
  return_freed_memory();
  EngineOpener::choose_rows(s);
  SLUICE_TRY(EngineOpener::choose_weights(s));
  // Counted as the program's just now; of what opened tokenizer and template, little runs again.
  return_code_pages();
  if (!s.weights->residency().all_stay())
    s.info.notes.push_back(stream_note(s.info, s.weights->residency()));
  for (const std::string& note : s.info.notes) log.info(note);
  EngineOpener::choose_reads(s);
  s.weights->set_guesses(s.options.lookahead);
  if (s.options.verify_reads) SLUICE_TRY(EngineOpener::verify_reads(s, log, progress));
  SLUICE_TRY(s.weights->load(*s.pool, progress, s.options.reads));
  for (const auto& file : s.checkpoint->files) SLUICE_TRY(file->unchanged());
  const uint64_t blocks = kv_blocks(s.limits.context, s.options.sessions_max);
  SLUICE_ASSIGN(s.kv, KvPool::make(s.limits.kv, static_cast<size_t>(blocks)));
  if (!s.limits.state.empty()) {
    SLUICE_ASSIGN(s.states,
                  StatePool::make(s.limits.state, s.options.sessions_max * kStatesOfSession));
  }
  s.backend->allocate(s.limits);
  return {};
}

// What is there now, less what slots that were never filled will still take.
int64_t EngineOpener::spare_bytes(const Engine::State& state) {
  const ExpertSlots& slots = *state.weights->slots();
  const MemoryInfo machine = detect_memory();
  const uint64_t resident = resident_bytes();
  int64_t spare = INT64_MAX;
  const auto apply = [&](uint64_t room, uint64_t taken) {
    spare = std::min(spare, static_cast<int64_t>(room) - static_cast<int64_t>(taken));
  };
  if (machine.available != 0) apply(machine.available, kReserveBytes);
  if (machine.limit != 0) apply(machine.limit, resident);
  if (state.options.memory_bytes_max != 0) apply(state.options.memory_bytes_max, resident);
  return spare - static_cast<int64_t>(slots.table().empty_slots() * slots.slot_bytes());
}

bool Engine::adapt_memory() {
  State& s = *state_;
  const ExpertSlots* slots = s.weights->slots();
  // A device's memory is not given back in parts.
  if (slots == nullptr || s.processor == nullptr) return false;
  // A little comes and goes all the time.
  constexpr size_t kWorthwhile = 16;  // one part of so many
  const size_t before = slots->slots();
  const int64_t spare = EngineOpener::spare_bytes(s);
  const auto slot_bytes = static_cast<int64_t>(slots->slot_bytes());
  const int64_t change = (spare < 0 ? spare - slot_bytes + 1 : spare) / slot_bytes;  // downwards
  const size_t planned = s.weights->residency().slots;
  const int64_t wanted =
      std::clamp<int64_t>(static_cast<int64_t>(before) + change, 1, static_cast<int64_t>(planned));
  const int64_t step = wanted - static_cast<int64_t>(before);
  if (step == 0 || (step > 0 && static_cast<size_t>(step) < planned / kWorthwhile)) return false;
  s.weights->resize_experts(static_cast<uint64_t>(wanted) * slots->slot_bytes());
  return slots->slots() != before;
}

Result<std::shared_ptr<Engine>> Engine::open(const std::string& path, const EngineOptions& options,
                                             ThreadPool& pool, Log& log, Progress& progress) {
  SLUICE_ASSIGN(auto checkpoint, io::open_checkpoint(path));
  return open(std::move(checkpoint), options, pool, log, progress);
}

Result<std::shared_ptr<Engine>> Engine::open(std::shared_ptr<const io::Checkpoint> checkpoint,
                                             const EngineOptions& options, ThreadPool& pool,
                                             Log& log, Progress& progress) {
  SLUICE_ASSIGN(auto engine, plan(std::move(checkpoint), options, pool));
  SLUICE_TRY(engine->load(log, progress));
  return engine;
}

Result<std::string> Engine::sidecar(std::string_view name) const {
  for (const io::Sidecar& sidecar : state_->checkpoint->sidecars)
    if (sidecar.name == name) return io::read_text(*sidecar.source, kSidecarBytesMax);
  return fail(ErrorCode::kNotFound, "{}: there is no {}", state_->info.path, name);
}

}  // namespace sluice::runtime
