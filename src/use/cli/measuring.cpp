#include "cli/measuring.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "base/units.h"
#include "cli/evaluation.h"
#include "cli/generation.h"
#include "evaluate/self_text.h"
#include "evaluate/sensitivity.h"

namespace sluice::cli {
namespace {

using evaluate::SensitivityModule;
using evaluate::Window;

// Short enough that a window's logits are little memory, long enough for attention to matter.
constexpr size_t kWindowTokens = 256;
constexpr size_t kSessions = 8;  // in which the model writes text
constexpr uint64_t kSeed = 1;
constexpr uint64_t kTableBytesMax = 64ull << 20;

std::vector<SensitivityModule> quantizable_modules(const families::ModelMap& map) {
  std::vector<SensitivityModule> modules;
  for (const families::OutputModule& module : map.modules)
    if (module.quantizable)
      modules.push_back({module.tensor_name(), std::string(role_name(module.role)), module.layer});
  return modules;
}

bool data_free(const SensitivityArguments& arguments) { return arguments.text == kDataFree; }

// What a table and a journal belong to. text: the user's; empty where the model writes its own.
Json measurement_of(const OpenedModel& model, const SensitivityArguments& arguments,
                    const std::string& text) {
  Hasher modules;
  for (const SensitivityModule& module : quantizable_modules(model.map)) {
    modules.update(module.name);
    modules.update("\n");
  }
  return {{"kind", "sluice sensitivities"},
          {"version", 1},
          {"model", model.checkpoint->identity_digest().hex()},
          {"modules", modules.finish().hex()},
          {"text", data_free(arguments) ? Json("self-generated") : Json(digest_of(text).hex())},
          {"tokens", arguments.tokens},
          {"window_tokens", kWindowTokens},
          {"minutes", arguments.minutes},
          {"noise", evaluate::kNoise},
          {"seed", kSeed}};
}

// The measurement of the table that is there, if it is the one asked for; null where there is none.
Result<Json> finished_measurement(Context& context, const std::string& path, const Json& wanted) {
  if (!context.storage->exists(path)) return Json();
  SLUICE_ASSIGN(const auto source, context.storage->open_source(path));
  SLUICE_ASSIGN(const std::string text, io::read_text(*source, kTableBytesMax));
  SLUICE_ASSIGN(const Json table, parse_json(text, path));
  const Json* found = json_find(table, "measurement");
  Json common = found == nullptr ? Json() : *found;
  common.update(wanted);
  if (found != nullptr && *found == common) return common;
  return fail(ErrorCode::kInvalidArgument,
              "{} was measured on another model or otherwise; remove it, or choose another output",
              path);
}

// Evenly spread over the text, in whole windows.
std::vector<Window> spread(std::vector<Window> windows, uint64_t tokens) {
  const size_t wanted = static_cast<size_t>((tokens + kWindowTokens - 2) / (kWindowTokens - 1));
  if (windows.size() <= wanted) return windows;
  std::vector<Window> chosen;
  for (size_t i = 0; i < wanted; ++i)
    chosen.push_back(std::move(windows[i * windows.size() / wanted]));
  return chosen;
}

Result<std::vector<Window>> windows_of_text(const std::shared_ptr<runtime::Engine>& engine,
                                            const std::string& text, uint64_t tokens) {
  SLUICE_ASSIGN(const auto ids, tokens_of(engine, text));
  SLUICE_ASSIGN(auto windows, evaluate::cut_windows(evaluate::Protocol::kPlain, ids, kWindowTokens,
                                                    engine->info().bos));
  return spread(std::move(windows), tokens);
}

Result<Window> window_of(const Json& text) {
  const auto is_id = [](const Json& id) { return id.is_number_unsigned() && id <= UINT32_MAX; };
  if (!text.is_array() || text.size() < 2 || text.size() > kWindowTokens ||
      !std::ranges::all_of(text, is_id))
    return fail(ErrorCode::kCorrupt,
                "journal of sensitivities: a window of text is no list of ids");
  Window window;
  for (const Json& id : text) window.ids.push_back(id.get<uint32_t>());
  return window;
}

// Once written it is kept with the finished work.
Result<std::vector<Window>> self_text(Context& context, runtime::Engine& engine, uint64_t tokens,
                                      evaluate::FinishedWork& finished) {
  std::vector<Window> windows;
  for (const Json& piece : finished.pieces()) {
    const Json* texts = json_find(piece, "windows");
    if (texts == nullptr || texts->empty()) continue;
    for (const Json& text : *texts) {
      SLUICE_ASSIGN(Window window, window_of(text));
      windows.push_back(std::move(window));
    }
    return windows;
  }
  SLUICE_ASSIGN(windows, evaluate::generate_self_text(engine,
                                                      {.tokens = static_cast<size_t>(tokens),
                                                       .window_tokens = kWindowTokens,
                                                       .sessions = kSessions,
                                                       .seed = kSeed,
                                                       .simd = context.simd},
                                                      *context.console, context.cancel));
  context.console->end();
  Json texts = Json::array();
  for (const Window& window : windows) texts.push_back(window.ids);
  SLUICE_TRY(finished.add({{"windows", std::move(texts)}}));
  return windows;
}

std::string cost_text(const evaluate::SensitivityCost& cost, size_t tokens) {
  std::string text = fmt::format("sensitivities: {} modules", cost.modules);
  if (cost.groups_first < cost.modules)
    text += fmt::format(" in {} groups, the largest of which are measured again in halves",
                        cost.groups_first);
  text += fmt::format("; {} passes over {} tokens", cost.passes, tokens);
  if (cost.passes_done > 0) text += fmt::format(", {} of them done", cost.passes_done);
  return text + fmt::format("; about {} more", duration_text(cost.seconds));
}

// The engine as it should be for measuring, its weights not read yet.
Result<RunningModel> plan_measuring(Context& context, const std::string& model_path,
                                    const SensitivityArguments& arguments) {
  EngineArguments engine;
  engine.context_tokens = kWindowTokens;
  engine.kv = "f32";
  engine.activations = "f32";
  engine.memory = arguments.memory;
  SLUICE_ASSIGN(RunningModel running,
                plan_engine(context, model_path, engine, {.sessions = kSessions}));
  const runtime::MemoryNeed& need = running.engine->memory();
  const uint64_t logits =
      uint64_t{kWindowTokens} * running.engine->info().vocabulary * sizeof(float);
  context.console->info(fmt::format("sensitivities: about {} of memory, of which weights {}",
                                    bytes_text(need.total() + logits), bytes_text(need.weights)));
  return running;
}

}  // namespace

void add_sensitivity_options(CLI::App& command, SensitivityArguments& arguments) {
  command
      .add_option("--sensitivity", arguments.text,
                  "also measure how much each module's error changes what the model predicts: "
                  "data-free, on text that it writes itself, or on a text file; into "
                  "FILE.sensitivity.json, for `sluice plan --sensitivity`")
      ->type_name("data-free|TEXT")
      ->check(name_check());
  command.add_option("--sensitivity-tokens", arguments.tokens, "tokens that it is measured on")
      ->check(CLI::Range(64, 1 << 24))
      ->capture_default_str();
  command
      .add_option("--sensitivity-minutes", arguments.minutes,
                  "measure modules of one role and depth together where one by one takes longer; "
                  "0: no limit")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--memory", arguments.memory,
                     "the most memory that measuring may take, such as 8GB; weights beyond it are "
                     "read from disk as they are used");
}

std::string sensitivity_path(const std::string& analysis) { return analysis + ".sensitivity.json"; }

Result<Json> measure_to_file(Context& context, const std::string& model_path,
                             const OpenedModel& model, const SensitivityArguments& arguments,
                             const std::string& path) {
  io::Storage& storage = *context.storage;
  std::string text;
  if (!data_free(arguments)) {
    SLUICE_ASSIGN(text, read_large_text(context, arguments.text));
  }
  const Json wanted = measurement_of(model, arguments, text);
  SLUICE_ASSIGN(Json there, finished_measurement(context, path, wanted));
  if (!there.is_null()) return there;

  SLUICE_ASSIGN(const RunningModel running, plan_measuring(context, model_path, arguments));
  runtime::Engine& engine = *running.engine;
  const std::string journal = path + ".journal";
  SLUICE_ASSIGN(auto finished, evaluate::FinishedWork::open(storage, journal, wanted));
  std::vector<Window> windows;
  if (!data_free(arguments)) {
    SLUICE_ASSIGN(windows, windows_of_text(running.engine, text, arguments.tokens));
  }
  SLUICE_TRY(load_weights(context, running));
  if (data_free(arguments)) {
    SLUICE_ASSIGN(windows, self_text(context, engine, arguments.tokens, finished));
  }
  const std::vector<SensitivityModule> all = quantizable_modules(model.map);
  const std::vector<SensitivityModule> modules = evaluate::measurable(engine, all);
  if (modules.empty())
    return fail(ErrorCode::kUnsupported, "{}: none of its modules can be measured", model_path);
  if (modules.size() < all.size())
    context.console->info(
        fmt::format("sensitivities: {} modules that running this model does not "
                    "use count as others of their roles",
                    all.size() - modules.size()));
  size_t tokens = 0;
  for (const Window& window : windows) tokens += window.ids.size() - window.first_scored;
  const evaluate::SensitivityOptions options{.noise = evaluate::kNoise,
                                             .seed = kSeed,
                                             .seconds_max = 60 * arguments.minutes,
                                             .simd = context.simd};
  SLUICE_ASSIGN(const evaluate::Sensitivity measured,
                evaluate::measure_sensitivity(
                    engine, windows, modules, options, finished,
                    [&](const evaluate::SensitivityCost& cost) {
                      context.console->info(cost_text(cost, tokens));
                    },
                    *context.console, context.cancel));
  context.console->end();
  const std::string table = evaluate::sensitivity_table(measured, wanted);
  SLUICE_TRY(io::write_file_atomically(storage, path, table));
  SLUICE_TRY(storage.remove(journal));
  return finished_measurement(context, path, wanted);
}

}  // namespace sluice::cli
