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
  std::vector<std::string> devices;  // empty: the engine's
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

Json result_json(const Throughput& result) {
  const bool decode = result.kind == Throughput::Kind::kDecode;
  Json json = {{"kind", decode ? "decode" : "prefill"},
               {"tokens", result.tokens},
               {"depth", result.depth},
               {"batch", result.batch},
               {"seconds", result.seconds},
               {"tokens_per_s", result.tokens_per_s}};
  if (decode) json["read_bytes_token"] = result.read_bytes_token;
  if (result.memory_bytes_s > 0) {
    json["memory_bytes_s"] = result.memory_bytes_s;
    json["memory_share"] = result.share_of_memory;
  }
  if (result.share_of_peak > 0) json["peak_share"] = result.share_of_peak;
  if (result.limit_s > 0) {
    json["disk_bytes_step"] = result.disk_bytes_step;
    json["hit_rate"] = result.hit_rate;
    json["disk_limit_s"] = result.limit_s;
    json["share_of_disk_limit"] = result.share_of_limit;
    json["cpu_s_step"] = result.cpu_s_step;
  }
  return json;
}

std::string share_text(double share) {
  return share > 0 ? fmt::format("{:.1f} %", 100 * share) : "";
}

std::string memory_text(const std::vector<Throughput>& results) {
  Table table({Align::kLeft, Align::kRight, Align::kRight, Align::kRight, Align::kRight,
               Align::kRight, Align::kRight});
  table.add({"", "tokens", "depth", "batch", "tokens/s", "of memory rate", "of peak arithmetic"});
  for (const Throughput& result : results) {
    const bool decode = result.kind == Throughput::Kind::kDecode;
    table.add({decode ? "decode" : "prefill", fmt::format("{}", result.tokens),
               fmt::format("{}", result.depth), fmt::format("{}", result.batch),
               fmt::format("{:.2f}", result.tokens_per_s), share_text(result.share_of_memory),
               share_text(result.share_of_peak)});
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
               share_text(result.hit_rate), share_text(result.share_of_limit)});
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

// All that was found out about a model on one device.
struct DeviceBench {
  runtime::ModelInfo info;
  size_t threads = 0;
  std::vector<Throughput> results;
  std::optional<DraftBench> drafted;
  uint64_t peak_bytes = 0;  // of the program, so far

  bool from_disk() const { return info.disk_bytes_token > 0; }
  // The best that was seen; 0: not measured.
  double memory_bytes_s() const {
    return std::ranges::max(results, {}, &Throughput::memory_bytes_s).memory_bytes_s;
  }
};

Result<DeviceBench> measure(Context& context, const Options& options, const std::string& device) {
  EngineArguments engine = options.engine;
  engine.device = device;
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
  DeviceBench found;
  SLUICE_ASSIGN(found.results, evaluate::measure_throughput(*running.engine, wanted,
                                                            *context.console, context.cancel));
  context.console->end();
  if (draft.model) {
    SLUICE_ASSIGN(found.drafted, bench_draft(context, *draft.model, options.draft, draft.drafting,
                                             options.decode_tokens, options.repetitions));
  }
  SLUICE_TRY(finish_running(context, running));
  found.peak_bytes = peak_resident_bytes();
  found.info = running.engine->info();
  found.threads = running.pool->threads();
  return found;
}

Json bench_json(const Context& context, const DeviceBench& found) {
  Json list = Json::array();
  for (const Throughput& result : found.results) list.push_back(result_json(result));
  const double memory_rate = found.memory_bytes_s();
  return {{"model", found.info.path},
          {"family", found.info.family},
          {"storage", found.info.storage},
          {"parameters", found.info.parameters},
          {"weight_bytes", found.info.weight_bytes},
          {"threads", found.threads},
          {"simd", simd_level_name(context.simd)},
          {"device", device_text(found.info)},
          {"memory_bytes_s", memory_rate > 0 ? Json(memory_rate) : Json()},
          {"disk_bytes_token", found.info.disk_bytes_token},
          {"peak_resident_bytes", found.peak_bytes},
          {"draft", found.drafted ? draft_bench_json(*found.drafted) : Json()},
          {"results", std::move(list)}};
}

std::string bench_text(const Context& context, const DeviceBench& found) {
  const runtime::ModelInfo& info = found.info;
  const double memory_rate = found.memory_bytes_s();
  std::string text = fmt::format(
      "{}: {}, {}, {} of weights\n{}, {} threads, {}, {}\n\n", info.path, info.family, info.storage,
      bytes_text(info.weight_bytes), device_text(info), found.threads,
      simd_level_name(context.simd),
      found.from_disk()
          ? fmt::format("about {} from disk for each token", bytes_text(info.disk_bytes_token))
      : memory_rate > 0 ? fmt::format("memory reads {:.1f} GB/s", memory_rate / 1e9)
                        : "all weights in memory");
  text += found.from_disk() ? disk_text(found.results) : memory_text(found.results);
  if (found.drafted) text += "\n" + draft_bench_text(*found.drafted);
  return text + fmt::format("\npeak memory {}\n", bytes_text(found.peak_bytes));
}

// Tokens per second of all devices side by side.
std::string comparison_text(const std::vector<DeviceBench>& devices) {
  std::vector<Align> columns(4 + devices.size(), Align::kRight);
  columns[0] = Align::kLeft;
  Table table(std::move(columns));
  std::vector<std::string> head = {"tokens/s", "tokens", "depth", "batch"};
  for (const DeviceBench& device : devices) head.push_back(device_text(device.info));
  table.add(std::move(head));
  for (size_t i = 0; i < devices[0].results.size(); ++i) {
    const Throughput& first = devices[0].results[i];
    std::vector<std::string> row = {first.kind == Throughput::Kind::kDecode ? "decode" : "prefill",
                                    fmt::format("{}", first.tokens), fmt::format("{}", first.depth),
                                    fmt::format("{}", first.batch)};
    for (const DeviceBench& device : devices)
      row.push_back(fmt::format("{:.2f}", device.results[i].tokens_per_s));
    table.add(std::move(row));
  }
  return table.text("  ");
}

Result<int> run(Context& context, const Options& options) {
  const std::vector<std::string> devices =
      options.devices.empty() ? std::vector{options.engine.device} : options.devices;
  std::vector<DeviceBench> found;
  for (const std::string& device : devices) {
    SLUICE_ASSIGN(found.emplace_back(), measure(context, options, device));
  }
  if (context.options.json) {
    if (options.devices.empty()) {
      context.print_json(bench_json(context, found[0]));
      return kExitSuccess;
    }
    Json list = Json::array();
    for (const DeviceBench& device : found) list.push_back(bench_json(context, device));
    context.print_json({{"devices", std::move(list)}});
    return kExitSuccess;
  }
  for (const DeviceBench& device : found)
    context.print(bench_text(context, device) + (found.size() > 1 ? "\n" : ""));
  if (found.size() > 1) context.print(comparison_text(found));
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
  command
      ->add_option("--devices", options->devices,
                   "measure on each of these, one after another, and compare them")
      ->delimiter(',')
      ->check(CLI::IsMember(device_names()))
      ->excludes("--device");
  command->footer(
      "Examples:\n"
      "  sluice bench Qwen3-8B-6GB\n"
      "  sluice bench Qwen3-8B-6GB --devices cpu,gpu\n"
      "  sluice bench Qwen3-8B-6GB --prompts 512,4096 --depths 0,4096 --batches 1,8 --json");
  command->callback([&action, options] {
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
