#include "cli/gate.h"

#include <algorithm>

#include "base/clock.h"
#include "base/sealed_json.h"
#include "base/units.h"
#include "cli/generation.h"
#include "evaluate/reference.h"
#include "evaluate/self_text.h"

namespace sluice::cli {
namespace {

using evaluate::Comparison;
using evaluate::Window;

// Another seed than those of the texts that sensitivities are measured and inputs recorded on.
constexpr uint64_t kHeldOutSeed = 3;
constexpr size_t kTokens = 4096, kWindowTokens = 256, kSessions = 8;
constexpr uint64_t kRecordBytesMax = 16ull << 20;

// Weights that are encoded with error feedback in a second by one thread, at the least: what the
// time is foretold by.
constexpr double kFeedbackWeightsSecond = 250'000;

EngineArguments engine_arguments(const GateArguments& arguments) {
  EngineArguments engine;
  engine.context_tokens = kWindowTokens;
  engine.kv = "f32";
  engine.activations = "f32";
  engine.memory = arguments.memory;
  return engine;
}

// An output or a reference, in which there are files alone.
Status remove_folder(io::Storage& storage, const std::string& folder) {
  if (!storage.exists(folder)) return {};
  SLUICE_ASSIGN(const auto names, storage.list_directory(folder));
  for (const std::string& name : names)
    SLUICE_TRY(storage.remove(fmt::format("{}/{}", folder, name)));
  return storage.remove(folder);
}

Json variants_json(std::span<const Variant> variants) {
  Json list = Json::array();
  for (const Variant& variant : variants)
    list.push_back({{"name", variant.name},
                    {"plan", variant.plan.digest().hex()},
                    {"recorded", variant.recorded ? variant.recorded->digest().hex() : ""}});
  return list;
}

// Scores of trials by an earlier run, if it judged the same variants; a damaged record is none.
std::vector<Comparison> earlier_scores(Context& context, const std::string& path,
                                       const Json& variants) {
  std::vector<Comparison> scores;
  if (!context.storage->exists(path)) return scores;
  const auto read = [&]() -> Status {
    SLUICE_ASSIGN(const auto source, context.storage->open_source(path));
    SLUICE_ASSIGN(const std::string text, io::read_text(*source, kRecordBytesMax));
    SLUICE_ASSIGN(const Json json, parse_json(text, path));
    SLUICE_TRY(check_seal(json, path));
    const Json* judged = json_find(json, "variants");
    const Json* found = json_find(json, "scores");
    if (judged == nullptr || *judged != variants || found == nullptr || !found->is_array() ||
        found->size() > variants.size())
      return {};
    for (const Json& score : *found) {
      SLUICE_ASSIGN(Comparison parsed, evaluate::parse_comparison(score, path));
      scores.push_back(std::move(parsed));
    }
    return {};
  }();
  if (read) return scores;
  context.console->warn(read.error().message + "; the trials are made again");
  return {};
}

Status keep_scores(Context& context, const std::string& path, const Json& variants,
                   std::span<const Comparison> scores) {
  Json list = Json::array();
  for (const Comparison& score : scores) list.push_back(evaluate::comparison_json(score));
  const Json record = {{"kind", "sluice gate"}, {"version", 1},
                       {"tokens", kTokens},     {"seed", kHeldOutSeed},
                       {"variants", variants},  {"scores", std::move(list)}};
  return io::write_file_atomically(*context.storage, path, dump_json(sealed(record), 1) + "\n");
}

// What the source predicts on text that it writes, in a folder: it and a trial are not in memory
// together.
Result<std::vector<Window>> make_reference(Context& context, const GateArguments& arguments,
                                           const std::string& folder) {
  SLUICE_ASSIGN(
      const RunningModel running,
      plan_engine(context, arguments.model, engine_arguments(arguments), {.sessions = kSessions}));
  SLUICE_TRY(load_weights(context, running));
  context.console->count_in("tokens");
  SLUICE_ASSIGN(auto windows, evaluate::generate_self_text(*running.engine,
                                                           {.tokens = kTokens,
                                                            .window_tokens = kWindowTokens,
                                                            .sessions = kSessions,
                                                            .seed = kHeldOutSeed,
                                                            .simd = context.simd},
                                                           *context.console, context.cancel));
  SLUICE_TRY(evaluate::write_reference(*running.engine, windows, folder, *context.storage,
                                       *context.console, context.cancel));
  context.console->end();
  context.console->count_in("");
  return windows;
}

Result<Comparison> score_trial(Context& context, const GateArguments& arguments,
                               const std::string& trial, std::span<const Window> windows,
                               const std::string& reference) {
  SLUICE_ASSIGN(const RunningModel running,
                plan_engine(context, trial, engine_arguments(arguments)));
  SLUICE_TRY(load_weights(context, running));
  SLUICE_ASSIGN(const auto rows, evaluate::open_reference(reference, windows, *context.storage));
  context.console->count_in("tokens");
  auto scores =
      evaluate::compare(*running.engine, windows, *rows, *context.console, context.cancel);
  context.console->end();
  context.console->count_in("");
  return scores;
}

// Named after its plan, so that a trial which an earlier run finished is taken for no other.
std::string trial_path(const GateArguments& arguments, const Variant& variant) {
  return fmt::format("{}.trial-{}", arguments.out, variant.plan.digest().hex().substr(0, 12));
}

double trial_minutes(const Variant& variant, const Context& context) {
  return static_cast<double>(variant.plan.data().elements) /
         (kFeedbackWeightsSecond * context.workers) / 60;
}

std::string verdict_text(std::span<const Variant> variants, std::span<const Comparison> scores,
                         size_t chosen) {
  std::string text = "gate:";
  for (size_t i = 0; i < scores.size(); ++i)
    text += fmt::format("{} {} {:.5f}", i == 0 ? "" : ",", variants[i].name, scores[i].kl.mean);
  return text + fmt::format(" nats of divergence; taken: {}", variants[chosen].name);
}

}  // namespace

size_t chosen_variant(std::span<const Comparison> scores) {
  size_t chosen = 0;
  for (size_t i = 1; i < scores.size(); ++i) {
    const auto against_first = evaluate::paired_difference(scores[i].windows, scores[0].windows);
    if (against_first.kl.high < 0 && scores[i].kl.mean < scores[chosen].kl.mean) chosen = i;
  }
  return chosen;
}

Result<size_t> pass_gate(Context& context, const OpenedModel& model,
                         std::span<const Variant> variants, const GateArguments& arguments) {
  if (variants.size() < 2) return 0;
  io::Storage& storage = *context.storage;
  const Json judged = variants_json(variants);
  std::vector<Comparison> scores = earlier_scores(context, arguments.record, judged);
  const size_t missing = variants.size() - scores.size();
  const double minutes = static_cast<double>(missing) * trial_minutes(variants[0], context);
  if (missing > 0 && minutes > arguments.minutes_max) {
    context.console->info(fmt::format(
        "gate: left out, {} trial outputs could take {}; the plan is used with all levers", missing,
        duration_text(60 * minutes)));
    return 0;
  }
  const std::string reference = arguments.out + ".trial-reference";
  if (missing > 0) {
    context.console->info(fmt::format(
        "gate: {} trial outputs of {}, one at a time, held against the source on {} tokens that it "
        "writes; at most about {}",
        missing, bytes_text(variants[0].plan.data().exact_bytes), kTokens,
        duration_text(60 * minutes)));
    SLUICE_ASSIGN(const auto windows, make_reference(context, arguments, reference));
    while (scores.size() < variants.size()) {
      const Variant& variant = variants[scores.size()];
      const std::string trial = trial_path(arguments, variant);
      if (!storage.exists(trial))
        SLUICE_TRY(run_convert(context, model, variant.plan, trial, nullptr, {}, nullptr, false,
                               variant.recorded));
      SLUICE_ASSIGN(Comparison score, score_trial(context, arguments, trial, windows, reference));
      scores.push_back(std::move(score));
      SLUICE_TRY(keep_scores(context, arguments.record, judged, scores));
      SLUICE_TRY(remove_folder(storage, trial));
    }
    SLUICE_TRY(remove_folder(storage, reference));
  }
  for (const Variant& variant : variants)  // a run may have been stopped while it removed one
    SLUICE_TRY(remove_folder(storage, trial_path(arguments, variant)));
  const size_t chosen = chosen_variant(scores);
  context.console->info(verdict_text(variants, scores, chosen));
  return chosen;
}

}  // namespace sluice::cli
