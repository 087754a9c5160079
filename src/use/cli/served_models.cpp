#include "cli/served_models.h"

#include <algorithm>
#include <filesystem>

#include "base/machine.h"
#include "chat/reasoning.h"
#include "cli/report_data.h"
#include "report/page.h"

namespace sluice::cli {
namespace {

// "SmolLM2-135M" of "…/SmolLM2-135M.gguf" and of "…/SmolLM2-135M/".
std::string name_of(const std::string& path) {
  std::filesystem::path place(path);
  if (!place.has_filename()) place = place.parent_path();
  return place.extension() == ".gguf" ? place.stem().string() : place.filename().string();
}

// The fit report of a model that Sluice made; empty for others.
std::string report_of(Context& context, const std::string& folder) {
  if (!context.storage->exists(folder + "/sluice.json")) return {};
  const auto input = load_report(context, {folder, nullptr, true});
  if (input) return report::report_page(*input);
  context.console->warn("no fit report: " + input.error().message);
  return {};
}

// For each token of the vocabulary: the scheduler's sampler; the trie by which answers keep to a
// schema, which the first such request makes (measured: 470 bytes for 49,152 tokens); and where an
// answer stands in its schema (measured: 1 to 2 MB there), for each session.
constexpr uint64_t kSamplerBytes = 28, kTrieBytes = 480, kStandBytes = 40;
// Encoding a prompt, for each of its tokens, by the threads that do so.
constexpr uint64_t kEncodingBytes = 2 * 256;

}  // namespace

// Destroyed from the last member to the first, as each uses those before it.
struct ServedModels::Holder {
  Holder(ServedModels& from, RunningModel opened, chat::ChatModel chat,
         runtime::SamplerOptions sampling, const server::SchedulerOptions& options)
      : owner(from),
        running(std::move(opened)),
        served(std::in_place, std::move(chat), std::move(sampling),
               kernels::layer_ops(owner.context_.simd), options) {}
  ~Holder() {
    served->scheduler.stop();
    const Status finished = finish_running(owner.context_, running);
    MutexLock lock(owner.mutex_);
    if (owner.closed_) owner.closed_ = finished;
  }
  Holder(const Holder&) = delete;
  Holder& operator=(const Holder&) = delete;

  ServedModels& owner;
  RunningModel running;
  std::optional<server::ServedModel> served;
};

ServedModels::ServedModels(Context& context, ServingArguments arguments)
    : context_(context), arguments_(std::move(arguments)) {}

Result<std::unique_ptr<ServedModels>> ServedModels::open(Context& context,
                                                         ServingArguments arguments) {
  std::unique_ptr<ServedModels> models(new ServedModels(context, std::move(arguments)));
  SLUICE_TRY(models->name_models());
  for (size_t i = 1; i < models->cards_.size(); ++i)
    if (auto opened = models->describe(i); !opened) return std::unexpected(opened.error());
  return_freed_memory();
  SLUICE_ASSIGN(models->first_, models->describe(0));
  models->program_bytes_ = resident_bytes();
  return models;
}

Status ServedModels::closed() {
  MutexLock lock(mutex_);
  return closed_;
}

Status ServedModels::name_models() {
  if (arguments_.models.size() > 1 && !arguments_.engine.expert_trace.empty())
    return fail(ErrorCode::kInvalidArgument, "--expert-trace: records one model, not several");
  for (const std::string& path : arguments_.models)
    cards_.push_back({.name = name_of(path), .aliases = {}, .identity = {}, .report = {}});
  for (const std::string& alias : arguments_.aliases) SLUICE_TRY(add_alias(alias));
  std::vector<std::string> names;
  for (const server::ModelCard& card : cards_) {
    names.push_back(card.name);
    names.insert(names.end(), card.aliases.begin(), card.aliases.end());
  }
  std::ranges::sort(names);
  const auto twice = std::ranges::adjacent_find(names);
  if (twice != names.end())
    return fail(ErrorCode::kInvalidArgument, "two models would be asked for as {}", *twice);
  return {};
}

Status ServedModels::add_alias(const std::string& alias) {
  const size_t equals = alias.find('=');
  if (equals == std::string::npos) {
    cards_.front().aliases.push_back(alias);
    return {};
  }
  const std::string name = alias.substr(equals + 1);
  const auto card = std::ranges::find(cards_, name, &server::ModelCard::name);
  if (card == cards_.end())
    return fail(ErrorCode::kInvalidArgument, "--alias {}: no model served here is called {}", alias,
                name);
  card->aliases.push_back(alias.substr(0, equals));
  return {};
}

Result<ServedModels::Opened> ServedModels::describe(size_t index) {
  SLUICE_ASSIGN(Opened opened, open_model(index, 0));
  const std::optional<tokenizer::ChatTemplate>& chat_template = opened.model.chat_template;
  const runtime::ModelInfo& info = opened.model.engine->info();
  server::ModelCard& card = cards_[index];
  card.parameters = info.parameters;
  card.weight_bytes = info.weight_bytes;
  card.context = info.context;
  card.identity = info.identity.hex();
  card.tools = chat_template.has_value();
  card.reasoning = chat_template && chat::knows_thinking(chat_template->source(false));
  card.report = report_of(context_, info.path);
  return opened;
}

Result<ServedModels::Opened> ServedModels::open_model(size_t index, uint64_t held_bytes) const {
  GenerationArguments generation;
  generation.template_file = arguments_.template_file;
  SLUICE_ASSIGN(Planned planned, plan_beside(index, held_bytes));
  SLUICE_ASSIGN(chat::ChatModel model, open_chat(context_, planned.running, generation));
  return Opened{std::move(planned), std::move(model)};
}

EngineUse ServedModels::use_of(size_t slots, uint64_t held_bytes) const {
  EngineUse use{.sessions = slots,
                .logits_rows = slots,
                .real_text = true,
                .program_bytes_token = kEncodingBytes,
                .program_bytes_word = kSamplerBytes + kTrieBytes + kStandBytes * slots};
  if (held_bytes > 0) use.program_bytes_min = program_bytes_ + held_bytes;
  return use;
}

// As many sessions as asked for. Left to us, four; fewer where their keys and values would take
// the room of weights, which would then be read from disk again and again.
Result<ServedModels::Planned> ServedModels::plan(size_t index, uint64_t held_bytes) const {
  const std::string& path = arguments_.models[index];
  Planned planned;
  const auto try_slots = [&](size_t slots) -> Status {
    planned.slots = slots;
    SLUICE_ASSIGN(planned.running,
                  plan_engine(context_, path, arguments_.engine, use_of(slots, held_bytes)));
    return {};
  };
  if (arguments_.slots > 0) {
    SLUICE_TRY(try_slots(arguments_.slots));
    return planned;
  }
  for (const size_t slots : {4, 2}) {
    if (!try_slots(slots)) continue;
    const runtime::MemoryNeed& need = planned.running.engine->memory();
    const bool resident = planned.running.engine->info().disk_bytes_token == 0;
    if (resident || need.kv + need.states <= need.total() / 8) return planned;
  }
  SLUICE_TRY(try_slots(1));
  return planned;
}

// Beside others a model comes only as a whole: reading its weights again and again costs more than
// bringing the others back.
Result<ServedModels::Planned> ServedModels::plan_beside(size_t index, uint64_t held_bytes) const {
  auto planned = plan(index, held_bytes);
  if (held_bytes == 0) return planned;
  const bool no_room = planned ? planned->running.engine->info().disk_bytes_token > 0
                               : planned.error().code == ErrorCode::kInvalidArgument;
  if (no_room)
    return fail(ErrorCode::kExhausted, "{} does not fit beside the models that are in memory",
                cards_[index].name);
  return planned;
}

Result<server::ModelLease> ServedModels::load(size_t index, uint64_t held_bytes) {
  return_freed_memory();
  std::optional<Opened> opened = std::exchange(first_, std::nullopt);
  if (!opened || index != 0) {
    SLUICE_ASSIGN(opened, open_model(index, held_bytes));
  }
  auto& [planned, model] = *opened;
  SLUICE_ASSIGN(auto sampling, sampler_options(*model.engine, {}, 1));
  SLUICE_TRY(load_weights(context_, planned.running));
  server::SchedulerOptions options = arguments_.scheduler;
  options.slots = planned.slots;
  options.turns = turns_;
  const auto holder = std::make_shared<Holder>(*this, std::move(planned.running), std::move(model),
                                               std::move(sampling), options);
  return server::ModelLease(holder, &*holder->served);
}

}  // namespace sluice::cli
