#include "cli/talking_model.h"

namespace sluice::cli {
namespace {

// What encoding a token's text takes, measured at 65,536 tokens: about 200 bytes.
constexpr uint64_t kEncodingBytesToken = 256;

}  // namespace

Result<std::unique_ptr<TalkingModel>> open_talking_model(Context& context,
                                                         const TalkArguments& arguments,
                                                         const std::string& name) {
  auto talking = std::make_unique<TalkingModel>();
  talking->name = name;
  EngineUse use = generation_use(arguments.generation);
  use.program_bytes_token = kEncodingBytesToken;
  SLUICE_ASSIGN(talking->running, plan_engine(context, name, arguments.engine, use));
  SLUICE_ASSIGN(talking->model, open_chat(context, talking->running, arguments.generation));
  if (!talking->model->chat_template)
    return fail(ErrorCode::kUnsupported, "{} cannot chat: {}; `sluice run --raw` continues a text",
                name, talking->model->template_problem.message);
  SLUICE_ASSIGN(talking->sampler, make_sampler(context, talking->engine(), arguments.generation,
                                               arguments.temperature));
  const DraftArguments& draft = arguments.generation.draft;
  SLUICE_ASSIGN(talking->drafting, plan_draft(context, talking->running, *talking->model,
                                              arguments.engine, draft, *talking->sampler));
  SLUICE_TRY(load_weights(context, talking->running));
  SLUICE_TRY(load_draft(context, draft, talking->drafting));
  talking->session.emplace(talking->engine().new_session());
  return talking;
}

Result<runtime::Sampler> sampler_with_seed(Context& context, const TalkingModel& talking,
                                           uint64_t seed) {
  runtime::SamplerOptions options = talking.sampler->options();
  options.seed = seed;
  return runtime::Sampler::open(std::move(options), talking.running.engine->info().vocabulary,
                                kernels::layer_ops(context.simd));
}

}  // namespace sluice::cli
