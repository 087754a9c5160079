// `sluice bench`: how fast a model reads and writes here, and how much of the memory's rate that
// is.
#include <CLI/CLI.hpp>

#include "base/units.h"
#include "cli/bench_drafts.h"
#include "cli/generation.h"
#include "cli/model.h"
#include "evaluate/throughput.h"

namespace sluice::cli {
namespace {

using evaluate::Throughput;

struct Options {
  std::string model;
  EngineArguments engine;
  DraftArguments draft;
  std::vector<size_t> prompts = {512}, depths = {0}, batches = {1};
  size_t decode_tokens = 128, repetitions = 5;
};

// Of the text that --draft-model and --lookup are measured on.
constexpr size_t kTextTokensMax = 256;

// The longest session that is measured.
size_t context_needed(const Options& options) {
  size_t tokens = std::ranges::max(options.prompts);
  if (draft_tokens(options.draft) > 0)
    tokens = std::max(tokens, kTextTokensMax + options.decode_tokens);
  return std::max(tokens, std::ranges::max(options.depths) + options.decode_tokens) + 1;
}

// Part of the memory's rate that reading weights and keys alone takes up. memory_rate 0: weights
// come from disk, and memory is neither the limit nor there to be measured.
double memory_share(const Throughput& result, double memory_rate) {
  const double steps_per_s = result.tokens_per_s / static_cast<double>(result.batch);
  return steps_per_s * static_cast<double>(result.read_bytes_token) / memory_rate;
}

Json result_json(const Throughput& result, double memory_rate) {
  const bool decode = result.kind == Throughput::Kind::kDecode;
  Json json = {{"kind", decode ? "decode" : "prefill"},
               {"tokens", result.tokens},
               {"depth", result.depth},
               {"batch", result.batch},
               {"seconds", result.seconds},
               {"tokens_per_s", result.tokens_per_s}};
  if (decode) {
    json["read_bytes_token"] = result.read_bytes_token;
    if (memory_rate > 0) json["memory_share"] = memory_share(result, memory_rate);
  }
  if (result.limit_s > 0) {
    json["disk_bytes_step"] = result.disk_bytes_step;
    json["hit_rate"] = result.hit_rate;
    json["disk_limit_s"] = result.limit_s;
    json["share_of_disk_limit"] = result.share_of_limit;
    json["cpu_s_step"] = result.cpu_s_step;
  }
  return json;
}

std::string memory_text(const std::vector<Throughput>& results, double memory_rate) {
  Table table(
      {Align::kLeft, Align::kRight, Align::kRight, Align::kRight, Align::kRight, Align::kRight});
  table.add({"", "tokens", "depth", "batch", "tokens/s", "of memory rate"});
  for (const Throughput& result : results) {
    const bool decode = result.kind == Throughput::Kind::kDecode;
    table.add({decode ? "decode" : "prefill", fmt::format("{}", result.tokens),
               fmt::format("{}", result.depth), fmt::format("{}", result.batch),
               fmt::format("{:.2f}", result.tokens_per_s),
               decode && memory_rate > 0
                   ? fmt::format("{:.1f} %", 100 * memory_share(result, memory_rate))
                   : ""});
  }
  return table.text("  ");
}

// Steps are tokens in decoding, and a whole prompt else.
std::string disk_text(const std::vector<Throughput>& results) {
  Table table({Align::kLeft, Align::kRight, Align::kRight, Align::kRight, Align::kRight,
               Align::kRight, Align::kRight, Align::kRight});
  table.add({"", "tokens", "depth", "batch", "tokens/s", "from disk, a step", "experts there",
             "of disk limit"});
  for (const Throughput& result : results) {
    const bool decode = result.kind == Throughput::Kind::kDecode;
    table.add({decode ? "decode" : "prefill", fmt::format("{}", result.tokens),
               fmt::format("{}", result.depth), fmt::format("{}", result.batch),
               fmt::format("{:.2f}", result.tokens_per_s),
               bytes_text(static_cast<uint64_t>(result.disk_bytes_step)),
               result.hit_rate > 0 ? fmt::format("{:.1f} %", 100 * result.hit_rate) : "",
               fmt::format("{:.1f} %", 100 * result.share_of_limit)});
  }
  return table.text("  ");
}

std::string device_text(const runtime::ModelInfo& info) {
  return info.device.empty() ? "processor" : info.device;
}

// What a draft model or lookup is measured with.
struct DraftCase {
  std::optional<chat::ChatModel> model;
  std::optional<runtime::Sampler> sampler;
  Drafting drafting;
};

Result<DraftCase> plan_draft_case(Context& context, const RunningModel& running,
                                  const Options& options) {
  DraftCase made;
  if (draft_tokens(options.draft) == 0) return made;
  SLUICE_ASSIGN(made.model, chat::open_chat_model(running.engine, ""));
  SLUICE_ASSIGN(made.sampler,
                runtime::Sampler::open({.temperature = 0}, running.engine->info().vocabulary,
                                       kernels::layer_ops(context.simd)));
  SLUICE_ASSIGN(made.drafting, plan_draft(context, running, *made.model, options.engine,
                                          options.draft, *made.sampler));
  return made;
}

Result<int> run(Context& context, const Options& options) {
  EngineArguments engine = options.engine;
  if (engine.context_tokens == 0) engine.context_tokens = context_needed(options);
  SLUICE_ASSIGN(
      const RunningModel running,
      plan_engine(context, options.model, engine, {.sessions = std::ranges::max(options.batches)}));
  SLUICE_ASSIGN(DraftCase draft, plan_draft_case(context, running, options));
  SLUICE_TRY(load_weights(context, running));
  SLUICE_TRY(load_draft(context, options.draft, draft.drafting));
  context.console->count_in("tokens");
  const evaluate::ThroughputOptions wanted{options.prompts, options.depths, options.batches,
                                           options.decode_tokens, options.repetitions};
  SLUICE_ASSIGN(const auto results, evaluate::measure_throughput(*running.engine, wanted,
                                                                 *context.console, context.cancel));
  context.console->end();
  std::optional<DraftBench> drafted;
  if (draft.model) {
    SLUICE_ASSIGN(drafted, bench_draft(context, *draft.model, options.draft, draft.drafting,
                                       options.decode_tokens, options.repetitions));
  }
  SLUICE_TRY(finish_running(context, running));
  const uint64_t peak_bytes = peak_resident_bytes();  // the next line's buffer is not the model's
  const runtime::ModelInfo& info = running.engine->info();
  const bool from_disk = info.disk_bytes_token > 0;
  // Measuring the memory takes half a GB of it.
  const bool measures_memory = !from_disk && options.engine.memory.empty();
  const double memory_rate = measures_memory ? evaluate::memory_read_rate(*running.pool) : 0;
  if (context.options.json) {
    Json list = Json::array();
    for (const Throughput& result : results) list.push_back(result_json(result, memory_rate));
    context.print_json({{"model", info.path},
                        {"family", info.family},
                        {"storage", info.storage},
                        {"parameters", info.parameters},
                        {"weight_bytes", info.weight_bytes},
                        {"threads", running.pool->threads()},
                        {"simd", simd_level_name(context.simd)},
                        {"device", device_text(info)},
                        {"memory_bytes_s", measures_memory ? Json(memory_rate) : Json()},
                        {"disk_bytes_token", info.disk_bytes_token},
                        {"peak_resident_bytes", peak_bytes},
                        {"draft", drafted ? draft_bench_json(*drafted) : Json()},
                        {"results", std::move(list)}});
    return kExitSuccess;
  }
  context.print(fmt::format(
      "{}: {}, {}, {} of weights\n{}, {} threads, {}, {}\n\n", info.path, info.family, info.storage,
      bytes_text(info.weight_bytes), device_text(info), running.pool->threads(),
      simd_level_name(context.simd),
      from_disk
          ? fmt::format("about {} from disk for each token", bytes_text(info.disk_bytes_token))
      : measures_memory ? fmt::format("memory reads {:.1f} GB/s", memory_rate / 1e9)
                        : "all weights in memory"));
  context.print(from_disk ? disk_text(results) : memory_text(results, memory_rate));
  if (drafted) context.print("\n" + draft_bench_text(*drafted));
  context.print(fmt::format("\npeak memory {}\n", bytes_text(peak_bytes)));
  return kExitSuccess;
}

}  // namespace

void add_bench(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("bench", "measure prefill and decode of a model on this machine");
  command
      ->add_option("MODEL", options->model,
                   "a folder with safetensors, a .gguf file, or the name of a downloaded model")
      ->type_name("PATH")
      ->required();
  command->add_option("-p,--prompts", options->prompts, "prompt lengths to read")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("-d,--depths", options->depths, "tokens of context before decoding")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("-b,--batches", options->batches, "sequences that decode together")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("-n,--tokens", options->decode_tokens, "tokens to decode")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("-r,--repetitions", options->repetitions, "how often; the median counts")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  add_draft_options(*command, options->draft);
  add_engine_options(*command, options->engine);
  command->footer(
      "Examples:\n"
      "  sluice bench Qwen3-8B-6GB\n"
      "  sluice bench Qwen3-8B-6GB --prompts 512,4096 --depths 0,4096 --batches 1,8 --json");
  command->callback([&action, options] {
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
