#include "cli/calibration.h"

#include <unordered_map>

#include "base/units.h"
#include "cli/evaluation.h"
#include "evaluate/activations.h"
#include "evaluate/self_text.h"

namespace sluice::cli {
namespace {

constexpr size_t kSessions = 8;  // sequences that are written together

// By tensor name, how many experts it has; of the weights whose input is worth recording.
std::unordered_map<std::string, uint64_t> wanted_modules(const OpenedModel& model) {
  std::unordered_map<std::string, uint64_t> wanted;
  for (const families::OutputModule& module : model.map.modules) {
    // Routers keep eight bits; an embedding's rows are looked up. The engine runs columns in the
    // source's order.
    const bool worth = module.quantizable && module.role != families::Role::kRouter &&
                       module.role != families::Role::kEmbedding &&
                       module.recipe.columns.in_order();
    if (worth) wanted.emplace(module.tensor_name(), module.experts());
  }
  return wanted;
}

// The text in windows from BOS on, as many tokens of it as wanted.
Result<std::vector<evaluate::Window>> windows_of_text(Context& context,
                                                      const CalibrationArguments& arguments,
                                                      const RunningModel& running) {
  SLUICE_ASSIGN(const std::string text, read_large_text(context, arguments.text));
  SLUICE_ASSIGN(auto ids, tokens_of(running.engine, text));
  if (ids.size() > arguments.tokens) ids.resize(arguments.tokens);
  return evaluate::cut_windows(evaluate::Protocol::kPlain, ids, arguments.engine.context_tokens,
                               running.engine->info().bos);
}

Result<std::vector<evaluate::Window>> windows_of(Context& context,
                                                 const CalibrationArguments& arguments,
                                                 const RunningModel& running) {
  if (!arguments.text.empty()) return windows_of_text(context, arguments, running);
  context.console->count_in("tokens");
  auto windows = evaluate::generate_self_text(*running.engine,
                                              {.tokens = arguments.tokens,
                                               .window_tokens = arguments.engine.context_tokens,
                                               .sessions = kSessions,
                                               .simd = context.simd},
                                              *context.console, context.cancel);
  context.console->end();
  return windows;
}

}  // namespace

Result<std::shared_ptr<const io::Activations>> record_inputs(Context& context,
                                                             const std::string& model_path,
                                                             const OpenedModel& model,
                                                             const CalibrationArguments& arguments,
                                                             const std::string& folder) {
  SLUICE_ASSIGN(const uint64_t moment_bytes, parse_bytes(arguments.moments));
  const auto wanted = wanted_modules(model);
  SLUICE_ASSIGN(const RunningModel running,
                plan_engine(context, model_path, arguments.engine, {.sessions = kSessions}));
  SLUICE_TRY(load_weights(context, running));
  SLUICE_ASSIGN(const auto windows, windows_of(context, arguments, running));
  SLUICE_ASSIGN(const evaluate::ActivationPlan plan,
                evaluate::plan_activations(
                    *running.engine, windows,
                    [&](std::string_view name) -> uint64_t {
                      const auto found = wanted.find(std::string(name));
                      return found == wanted.end() ? 0 : found->second;
                    },
                    moment_bytes, folder, *context.storage, context.cancel));
  if (plan.manifest.inputs.empty())
    return fail(ErrorCode::kUnsupported, "{}: of no weight is it known what enters its product",
                model_path);
  context.console->info(fmt::format(
      "{} inputs of products, {} on disk; {} left to run {} tokens, with {} for moments",
      plan.manifest.inputs.size(), bytes_text(plan.disk_bytes),
      plan.passes.size() == 1 ? "one pass" : fmt::format("{} passes", plan.passes.size()),
      plan.manifest.tokens, bytes_text(plan.memory_bytes)));
  context.console->count_in("tokens");
  SLUICE_TRY(evaluate::record_activations(*running.engine, windows, plan, folder, *context.storage,
                                          *running.pool, *context.console, context.cancel));
  context.console->end();
  return open_activations(context, *model.checkpoint, folder);
}

}  // namespace sluice::cli
