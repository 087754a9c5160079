#include "cli/drafting.h"

#include <CLI/CLI.hpp>

#include "base/units.h"
#include "cli/model.h"

namespace sluice::cli {
namespace {

// Guessing by looking up costs nothing, so it may guess longer than a model, whose every token is a
// step of its own. Beyond these, products cost more than guesses save (bench/log.tsv).
constexpr size_t kLookupTokens = 8;
constexpr size_t kModelTokens = 4;
constexpr size_t kTokensMax = 64;
// Rows of the draft model that go through it together: prompts alone have many.
constexpr size_t kChunkTokens = 128;

}  // namespace

void add_draft_options(CLI::App& command, DraftArguments& arguments) {
  CLI::Option* lookup =
      command.add_flag("--lookup", arguments.lookup,
                       "guess ahead from what the text repeats; never changes the text");
  command
      .add_option("--draft-model", arguments.model,
                  "a smaller model of the same vocabulary that guesses ahead; the large one checks "
                  "several guesses in one step; never changes the text")
      ->type_name("PATH")
      ->excludes(lookup);
  command
      .add_option("--draft-tokens,--num-draft-tokens", arguments.tokens,
                  fmt::format("the most guesses for a step; 0: {} of a model, {} with --lookup",
                              kModelTokens, kLookupTokens))
      ->check(CLI::Range(uint64_t{0}, uint64_t{kTokensMax}));
}

size_t draft_tokens(const DraftArguments& arguments) {
  if (!arguments.lookup && arguments.model.empty()) return 0;
  if (arguments.tokens != 0) return static_cast<size_t>(arguments.tokens);
  return arguments.lookup ? kLookupTokens : kModelTokens;
}

Result<Drafting> plan_draft(Context& context, const RunningModel& running,
                            const chat::ChatModel& model, const EngineArguments& engine,
                            const DraftArguments& arguments, const runtime::Sampler& sampler) {
  Drafting drafting;
  if (arguments.model.empty()) return drafting;
  runtime::EngineOptions options;
  options.context = running.engine->info().context;
  options.chunk_tokens = kChunkTokens;
  options.logits_rows = 1;
  options.simd = context.simd;
  SLUICE_ASSIGN(options.kv, runtime::parse_kv_type(engine.kv));
  SLUICE_ASSIGN(options.activations, runtime::parse_activations(engine.activations));
  SLUICE_ASSIGN(options.reads, runtime::parse_read_path(engine.reads));
  SLUICE_ASSIGN(const std::string path, local_path(context, arguments.model));
  SLUICE_ASSIGN(drafting.engine, plan_on_device(context, path, engine, options, *running.pool));
  SLUICE_TRY(chat::check_same_vocabulary(model, *drafting.engine));
  runtime::SamplerOptions chosen = sampler.options();
  std::erase_if(chosen.logit_bias, [&](const runtime::LogitBias& bias) {
    return bias.token >= drafting.engine->info().vocabulary;
  });
  SLUICE_ASSIGN(auto made,
                runtime::Sampler::open(std::move(chosen), drafting.engine->info().vocabulary,
                                       kernels::layer_ops(context.simd)));
  drafting.sampler = std::make_unique<runtime::Sampler>(std::move(made));
  running.engine->share_with(drafting.engine->memory());
  return drafting;
}

Status load_draft(Context& context, const DraftArguments& arguments, Drafting& drafting) {
  const size_t tokens = draft_tokens(arguments);
  if (arguments.lookup) drafting.draft = chat::lookup_draft(tokens);
  if (drafting.engine == nullptr) return {};
  const Status loaded = drafting.engine->load(*context.console, *context.console);
  context.console->end();
  SLUICE_TRY(loaded);
  drafting.draft =
      chat::model_draft(drafting.engine->new_session(), choose_with(*drafting.sampler), tokens);
  return {};
}

}  // namespace sluice::cli
