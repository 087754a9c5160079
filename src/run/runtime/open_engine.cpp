// Opening a model: everything is planned and added up from headers first, held against the memory
// there is, and only then read.
#include <algorithm>
#include <map>

#include "base/checked.h"
#include "base/machine.h"
#include "base/units.h"
#include "runtime/engine_state.h"

namespace sluice::runtime {
namespace {

using families::Role;

constexpr size_t kContextMax = size_t{1} << 26;
constexpr size_t kChunkRowsMin = 16;
// Rows of logits that are computed together: as many as fit in this, at most kLogitsRowsMax.
constexpr size_t kLogitsBytes = 16'000'000;
constexpr size_t kLogitsRowsMax = 64;
constexpr uint64_t kSidecarBytesMax = 256 << 20;

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
  return ids.empty() ? token_ids(checkpoint.config, key) : ids;
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
    info.read_bytes_token += entry.experts == 1
                                 ? entry.bytes()
                                 : entry.bytes() / entry.experts * config.experts_per_token;
  }
  info.storage =
      std::ranges::max_element(by_storage, {}, [](const auto& pair) { return pair.second; })->first;
  info.layers = config.dims.layers;
  info.vocabulary = config.dims.vocab_size;
  info.context_model = config.max_position_embeddings;
  info.identity = checkpoint.identity_digest();
  info.eos = special_ids(checkpoint, "eos_token_id");
  const std::vector<uint32_t> bos = special_ids(checkpoint, "bos_token_id");
  if (!bos.empty()) info.bos = bos.front();
  info.notes = weights.notes();
  return info;
}

size_t default_context(uint64_t context_model) {
  return context_model == 0
             ? kContextDefaultMax
             : static_cast<size_t>(std::min<uint64_t>(context_model, kContextDefaultMax));
}

}  // namespace

// Free functions cannot name the private State; this one can.
struct EngineOpener {
  static Result<std::unique_ptr<Engine::State>> plan(
      std::shared_ptr<const io::Checkpoint> checkpoint, const EngineOptions& options,
      ThreadPool& pool);
  static Status choose_limits(const EngineOptions& options, const model::ModelConfig& config,
                              Engine::State& state);
  static Status check_memory(const EngineOptions& options, const Engine::State& state);
};

Status EngineOpener::choose_limits(const EngineOptions& options, const model::ModelConfig& config,
                                   Engine::State& state) {
  const families::ModelDims& dims = config.dims;
  const size_t context =
      options.context == 0 ? default_context(config.max_position_embeddings) : options.context;
  if (context > kContextMax || options.sessions_max == 0 || options.sessions_max > kContextMax)
    return fail(ErrorCode::kInvalidArgument,
                "a context of {} tokens for {} sessions is outside of [1, {}]", context,
                options.sessions_max, kContextMax);
  StepLimits& limits = state.limits;
  limits.context = context;
  limits.heads = dims.heads;
  limits.kv = {options.kv, dims.layers, dims.kv_heads, dims.head_dim};
  limits.logits_rows =
      std::clamp<size_t>(kLogitsBytes / (dims.vocab_size * sizeof(float)), 1, kLogitsRowsMax);
  limits.rows = std::clamp<size_t>(options.chunk_tokens, 1, context);
  while (limits.rows > kChunkRowsMin && state.backend->scratch_bytes(limits) > kScratchBytes)
    limits.rows = (limits.rows + 1) / 2;

  const uint64_t blocks =
      (context + kKvBlockTokens - 1) / kKvBlockTokens * uint64_t{options.sessions_max};
  const auto kv_bytes = checked_mul(blocks, limits.kv.block_bytes());
  if (!kv_bytes || *kv_bytes > UINT64_MAX / 4 || blocks > UINT32_MAX)
    return fail(ErrorCode::kExhausted, "{} tokens of context for {} sessions cannot be addressed",
                context, options.sessions_max);
  state.need = {.weights = state.weights->memory_bytes(),
                .kv = *kv_bytes,
                .scratch = state.backend->scratch_bytes(limits)};
  state.info.context = context;
  state.info.chunk_tokens = limits.rows;
  state.info.kv_bytes_token = limits.kv.token_bytes();
  if (state.info.context_model != 0 && context > state.info.context_model)
    state.info.notes.push_back(
        fmt::format("a context of {} tokens is more than the {} that the model was made for",
                    context, state.info.context_model));
  return {};
}

Result<std::unique_ptr<Engine::State>> EngineOpener::plan(
    std::shared_ptr<const io::Checkpoint> checkpoint, const EngineOptions& options,
    ThreadPool& pool) {
  auto state = std::make_unique<Engine::State>();
  state->checkpoint = std::move(checkpoint);
  SLUICE_ASSIGN(const families::ModelMap map, families::map_model(*state->checkpoint, ""));
  SLUICE_ASSIGN(const model::ModelConfig config, model::read_config(*state->checkpoint, map));
  SLUICE_ASSIGN(state->weights, WeightStore::plan(state->checkpoint, map));
  state->info = describe(*state->checkpoint, config, *state->weights);
  state->backend =
      std::make_unique<CpuBackend>(*state->weights, options.simd, options.activations, pool);
  state->model = std::make_unique<model::Model>(config, *state->backend);
  SLUICE_TRY(choose_limits(options, config, *state));
  return state;
}

Status EngineOpener::check_memory(const EngineOptions& options, const Engine::State& state) {
  const MemoryInfo machine = detect_memory();
  uint64_t most = UINT64_MAX;
  std::string_view whose = "this machine has available";
  const auto lower = [&](uint64_t bytes, std::string_view owner) {
    if (bytes == 0 || bytes >= most) return;
    most = bytes;
    whose = owner;
  };
  lower(machine.available, "this machine has available");
  lower(machine.limit, "this process may use (cgroup)");
  lower(options.memory_bytes_max, "are allowed");
  if (state.need.total() <= most) return {};
  return fail(ErrorCode::kExhausted,
              "{}: running it takes {} = weights {} + keys and values {} ({} tokens) + scratch {}, "
              "but only {} {}; a smaller context, smaller keys and values or a model fitted to "
              "less memory would help",
              state.info.path, bytes_text(state.need.total()), bytes_text(state.need.weights),
              bytes_text(state.need.kv), state.info.context, bytes_text(state.need.scratch),
              bytes_text(most), whose);
}

Result<std::shared_ptr<Engine>> Engine::open(const std::string& path, const EngineOptions& options,
                                             ThreadPool& pool, Log& log, Progress& progress) {
  SLUICE_ASSIGN(auto checkpoint, io::open_checkpoint(path));
  return open(std::move(checkpoint), options, pool, log, progress);
}

Result<std::shared_ptr<Engine>> Engine::open(std::shared_ptr<const io::Checkpoint> checkpoint,
                                             const EngineOptions& options, ThreadPool& pool,
                                             Log& log, Progress& progress) {
  SLUICE_ASSIGN(auto state, EngineOpener::plan(std::move(checkpoint), options, pool));
  SLUICE_TRY(EngineOpener::check_memory(options, *state));
  for (const std::string& note : state->info.notes) log.info(note);
  SLUICE_TRY(state->weights->load(pool, progress));
  const size_t blocks = static_cast<size_t>(state->need.kv / state->limits.kv.block_bytes());
  SLUICE_ASSIGN(state->kv, KvPool::make(state->limits.kv, blocks));
  state->backend->allocate(state->limits);
  return std::shared_ptr<Engine>(new Engine(std::move(state)));
}

Result<MemoryNeed> Engine::measure(const std::string& path, const EngineOptions& options,
                                   ThreadPool& pool) {
  SLUICE_ASSIGN(auto checkpoint, io::open_checkpoint(path));
  SLUICE_ASSIGN(const auto state, EngineOpener::plan(std::move(checkpoint), options, pool));
  return state->need;
}

Result<std::string> Engine::sidecar(std::string_view name) const {
  for (const io::Sidecar& sidecar : state_->checkpoint->sidecars)
    if (sidecar.name == name) return io::read_text(*sidecar.source, kSidecarBytesMax);
  return fail(ErrorCode::kNotFound, "{}: there is no {}", state_->info.path, name);
}

}  // namespace sluice::runtime
