#include "cli/generation.h"

#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <random>

#include "base/machine.h"
#include "base/units.h"
#include "chat/answer_form.h"
#include "cli/model.h"
#include "cli/user_folder.h"
#include "gpu/gpu_device.h"
#include "runtime/expert_profile.h"

namespace sluice::cli {
namespace {

constexpr uint64_t kTextBytesMax = 64ull << 20;
// Short of 64 MB by what the prompt's tokens, the sampler and a few pages of code still take.
constexpr uint64_t kBesidesBytes = 60'000'000;

Result<std::string> read_text_file(Context& context, const std::string& path) {
  SLUICE_ASSIGN(const auto source, context.storage->open_source(path));
  return io::read_text(*source, kTextBytesMax);
}

// A number of generation_config.json, which not every model has.
std::optional<double> model_setting(const runtime::Engine& engine, std::string_view key) {
  const Json* value = json_find(engine.generation_config(), key);
  if (value == nullptr || !value->is_number()) return std::nullopt;
  return value->get<double>();
}

bool samples_by_default(const runtime::Engine& engine) {
  const Json* value = json_find(engine.generation_config(), "do_sample");
  return value == nullptr || !value->is_boolean() || value->get<bool>();
}

// "TOKEN=BIAS" by id.
Result<runtime::LogitBias> parse_bias(const std::string& text) {
  const size_t equals = text.find('=');
  char* end = nullptr;
  const unsigned long token = std::strtoul(text.c_str(), &end, 10);
  if (equals == std::string::npos || end != text.c_str() + equals || equals == 0)
    return fail(ErrorCode::kInvalidArgument, "--logit-bias {}: ID=BIAS is wanted", text);
  const float bias = std::strtof(text.c_str() + equals + 1, &end);
  if (*end != '\0' || end == text.c_str() + equals + 1 || std::isnan(bias))
    return fail(ErrorCode::kInvalidArgument, "--logit-bias {}: the bias is no number", text);
  return runtime::LogitBias{static_cast<uint32_t>(token), bias};
}

Result<Json> parse_template_arguments(const std::string& text) {
  SLUICE_ASSIGN(Json json, parse_json(text, "--template-args"));
  if (!json.is_object())
    return fail(ErrorCode::kInvalidArgument, "--template-args: a JSON object is wanted");
  return json;
}

double rate(size_t tokens, double seconds) {
  return seconds > 0 ? static_cast<double>(tokens) / seconds : 0;
}

// "read from disk since the start: 2.1 GB, 83 % of the experts asked for were in memory"
std::string stream_text(const runtime::StreamStatistics& statistics) {
  if (statistics.bytes_read == 0) return "";
  std::string text =
      fmt::format("\nread from disk since loading: {}", bytes_text(statistics.bytes_read));
  if (statistics.experts_requested > 0)
    text += fmt::format(", {:.0f} % of the experts asked for were in memory",
                        100.0 * static_cast<double>(statistics.experts_there) /
                            static_cast<double>(statistics.experts_requested));
  if (statistics.guesses > 0)
    text += fmt::format("; {} of {} guesses at the next layer's were right",
                        statistics.guesses_right, statistics.guesses);
  return text;
}

// Where what is kept of a model from one run to the next may be: beside its weights, else in the
// user's own folder.
std::vector<std::string> kept_paths(const runtime::ModelInfo& info, std::string_view name,
                                    const std::string& own_name) {
  struct stat state;
  const bool folder = ::stat(info.path.c_str(), &state) == 0 && S_ISDIR(state.st_mode);
  std::vector<std::string> paths = {fmt::format("{}{}{}", info.path, folder ? "/" : ".", name)};
  const std::string own = user_folder("XDG_CACHE_HOME", ".cache");
  if (!own.empty()) paths.push_back(fmt::format("{}/{}", own, own_name));
  return paths;
}
std::vector<std::string> profile_paths(const runtime::ModelInfo& info) {
  return kept_paths(info, runtime::kExpertProfileName,
                    fmt::format("experts-{}.json", info.identity.hex()));
}
std::vector<std::string> digest_paths(const runtime::ModelInfo& info) {
  return kept_paths(info, "sluice_pages.bin", fmt::format("pages-{}.bin", info.identity.hex()));
}

// A profile saves reads; without one, or with a bad one, everything works all the same.
void use_profile(Context& context, runtime::Engine& engine) {
  if (engine.expert_shares().empty()) return;
  for (const std::string& path : profile_paths(engine.info())) {
    if (!context.storage->exists(path)) continue;
    const auto source = context.storage->open_source(path);
    const auto text = source ? io::read_text(**source, runtime::kExpertProfileBytesMax)
                             : std::unexpected(source.error());
    const auto shares = text ? runtime::parse_expert_profile(*text, path, engine.info().identity)
                             : std::unexpected(text.error());
    const Status begun = shares ? engine.start_from(*shares) : std::unexpected(shares.error());
    if (!begun) context.console->warn(begun.error().message);
    return;
  }
}

void keep_profile(Context& context, const runtime::Engine& engine) {
  const runtime::ExpertShares shares = engine.expert_shares();
  if (shares.empty()) return;
  const std::string text = runtime::expert_profile_text(shares, engine.info().identity);
  for (const std::string& path : profile_paths(engine.info())) {
    std::error_code ignored;
    std::filesystem::create_directories(std::filesystem::path(path).parent_path(), ignored);
    if (io::write_file_atomically(*context.storage, path, text)) return;
  }
}

}  // namespace

std::vector<std::string> device_names() { return {"auto", "cpu", "gpu", "mlx"}; }

void add_engine_options(CLI::App& command, EngineArguments& arguments) {
  arguments.device = "auto";
  command
      .add_option("--device", arguments.device,
                  "what computes; auto: a GPU where this program and the machine have one; mlx: "
                  "MLX wherever it computes, for tests")
      ->check(CLI::IsMember(device_names()))
      ->capture_default_str();
  command
      .add_option("-c,--context,--ctx-size", arguments.context_tokens,
                  "tokens of context; 0: the model's own, at most 4096")
      ->capture_default_str();
  command.add_option("--kv", arguments.kv, "how keys and values are kept")
      ->check(CLI::IsMember({"f32", "f16", "q8", "q4"}))
      ->capture_default_str();
  command
      .add_option("--activations", arguments.activations,
                  "what enters products: 8-bit integers where that is safe, or f32 everywhere")
      ->check(CLI::IsMember({"auto", "f32", "i8"}))
      ->capture_default_str();
  command
      .add_option("--compat", arguments.compat,
                  "whose formula holds where mlx_lm departs from transformers")
      ->check(CLI::IsMember({"transformers", "mlx"}))
      ->capture_default_str();
  command.add_option("--memory", arguments.memory,
                     "the most memory that the process may take, such as 8GB; what does not fit is "
                     "read from disk as it is used "
                     "(default: what the machine offers)");
  command
      .add_option("--reads", arguments.reads,
                  "how weights are read that do not stay in memory; auto: io_uring where it works")
      ->check(CLI::IsMember({"auto", "io_uring", "threads"}))
      ->capture_default_str();
  command
      .add_option("--expert-trace", arguments.expert_trace,
                  "write down which experts were chosen, for `sluice doctor --replay`")
      ->type_name("FILE");
  command.add_flag(
      "--verify-reads", arguments.verify_reads,
      "hold whatever is read of the weights against digests of the files' pages, taken "
      "in one pass over the files and kept beside the model");
  command.add_flag(
      "--no-lookahead", arguments.no_lookahead,
      "wait for a layer's turn, instead of reading the experts that it would choose now "
      "while the one before computes");
  command.add_flag("--no-expert-profile", arguments.no_expert_profile,
                   "neither begin with the experts that earlier runs used most, nor note them");
}

Result<std::shared_ptr<runtime::Engine>> plan_on_device(Context& context, const std::string& path,
                                                        const EngineArguments& arguments,
                                                        runtime::EngineOptions options,
                                                        ThreadPool& pool) {
  SLUICE_ASSIGN(const gpu::DeviceChoice choice, gpu::parse_device(arguments.device));
  SLUICE_ASSIGN(options.device, gpu::open_device(choice, context.simd));
  auto engine = runtime::Engine::plan(path, options, pool);
  const bool refused = !engine && engine.error().code == ErrorCode::kUnsupported;
  if (!refused || options.device == nullptr || choice != gpu::DeviceChoice::kAuto) return engine;
  options.device = nullptr;
  auto on_processor = runtime::Engine::plan(path, options, pool);
  if (on_processor)
    context.console->info(fmt::format("the processor computes: {}", engine.error().message));
  return on_processor;
}

Result<RunningModel> plan_engine(Context& context, const std::string& path,
                                 const EngineArguments& arguments, const EngineUse& use) {
  runtime::EngineOptions options;
  options.context = arguments.context_tokens;
  options.sessions_max = use.sessions;
  options.logits_rows = use.logits_rows;
  options.besides_bytes_max = use.besides_bytes_max;
  options.program_bytes_token = use.program_bytes_token;
  options.program_bytes_min = use.program_bytes_min;
  options.program_bytes_word = use.program_bytes_word;
  options.simd = context.simd;
  SLUICE_ASSIGN(options.kv, runtime::parse_kv_type(arguments.kv));
  SLUICE_ASSIGN(options.activations, runtime::parse_activations(arguments.activations));
  SLUICE_ASSIGN(options.compat, runtime::parse_compat(arguments.compat));
  if (!arguments.memory.empty()) {
    SLUICE_ASSIGN(options.memory_bytes_max, parse_bytes(arguments.memory));
  }
  SLUICE_ASSIGN(options.reads, runtime::parse_read_path(arguments.reads));
  options.lookahead = !arguments.no_lookahead;
  options.verify_reads = arguments.verify_reads;
  return_memory_early();
  RunningModel running;
  running.pool = std::make_unique<ThreadPool>(context.workers);
  SLUICE_ASSIGN(const std::string found, local_path(context, path));
  SLUICE_ASSIGN(running.engine, plan_on_device(context, found, arguments, options, *running.pool));
  running.engine->keep_digests(digest_paths(running.engine->info()));
  running.expert_trace_path = arguments.expert_trace;
  running.keeps_profile = use.real_text && !arguments.no_expert_profile;
  if (!arguments.expert_trace.empty())
    running.expert_trace = std::make_shared<runtime::ExpertTrace>();
  return running;
}

Status load_weights(Context& context, const RunningModel& running) {
  const Status loaded = running.engine->load(*context.console, *context.console);
  context.console->end();
  if (!loaded) return loaded;
  if (running.keeps_profile) use_profile(context, *running.engine);
  if (running.expert_trace != nullptr) running.engine->record_experts(running.expert_trace.get());
  return loaded;
}

Status finish_running(Context& context, const RunningModel& running) {
  if (running.keeps_profile) keep_profile(context, *running.engine);
  if (running.expert_trace == nullptr) return {};
  running.engine->record_experts(nullptr);
  if (running.expert_trace->steps.empty())
    return fail(ErrorCode::kInvalidArgument, "--expert-trace: {} has no experts to choose from",
                running.engine->info().path);
  return io::write_file_atomically(*context.storage, running.expert_trace_path,
                                   runtime::trace_text(*running.expert_trace));
}

void add_generation_options(CLI::App& command, GenerationArguments& arguments) {
  command.add_option("-s,--system,--system-prompt", arguments.system, "the system prompt");
  command.add_option("--system-file", arguments.system_file, "a file with the system prompt");
  command
      .add_option("-n,--max-tokens", arguments.tokens_max,
                  "the most tokens of an answer; 0: until the model ends it")
      ->capture_default_str();
  command
      .add_option("--temp,--temperature", arguments.temperature,
                  "0: the most likely token (default: the model's own setting)")
      ->check(CLI::Range(0.0, 100.0));
  command.add_option("--top-k", arguments.top_k, "only the K most likely tokens; 0: all");
  command.add_option("--top-p", arguments.top_p, "the fewest tokens of this much probability")
      ->check(CLI::Range(0.0, 1.0));
  command.add_option("--min-p", arguments.min_p, "tokens of this part of the best's probability")
      ->check(CLI::Range(0.0, 1.0));
  command.add_option("--typical", arguments.typical, "locally typical sampling; 1: off")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command
      .add_option("--repeat-penalty,--repetition-penalty", arguments.repetition_penalty,
                  "above 1: what has occurred becomes less likely")
      ->capture_default_str();
  command
      .add_option("--presence-penalty", arguments.presence_penalty,
                  "subtracted from what has occurred")
      ->capture_default_str();
  command
      .add_option("--frequency-penalty", arguments.frequency_penalty, "subtracted per occurrence")
      ->capture_default_str();
  command
      .add_option("--repeat-last-n", arguments.penalty_last_n,
                  "how many tokens penalties look back on")
      ->capture_default_str();
  command.add_option("--logit-bias", arguments.logit_bias, "ID=BIAS, added to a token's logit");
  command.add_option("--seed", arguments.seed, "of the draws (default: another each time)");
  command.add_option("--stop", arguments.stops, "text that ends an answer");
  command.add_option("--chat-template-file", arguments.template_file,
                     "a Jinja template in place of the model's own");
  command.add_option("--template-args", arguments.template_arguments,
                     "a JSON object of variables for the chat template");
  command
      .add_option("--reasoning", arguments.reasoning,
                  "thinking: shown, switched off where the template can, or hidden")
      ->check(CLI::IsMember({"on", "off", "hide"}))
      ->capture_default_str();
  command.add_flag("--ignore-eos", arguments.ignore_end, "go on behind the end of the text");
  command.add_flag("--context-shift", arguments.context_shift,
                   "drop the oldest half when the context is full, instead of stopping");
  add_draft_options(command, arguments.draft);
}

void add_constraint_options(CLI::App& command, ConstraintArguments& arguments) {
  CLI::Option* schema =
      command
          .add_option("-j,--json-schema", arguments.json_schema,
                      "the answer is JSON by this schema, a text or a file; {}: any JSON object")
          ->type_name("JSON|FILE");
  command
      .add_option("--grammar", arguments.grammar,
                  "the answer is what this Lark grammar describes, a text or a file")
      ->type_name("LARK|FILE")
      ->excludes(schema);
}

Result<std::optional<tokenizer::Constraint>> make_constraint(Context& context,
                                                             const tokenizer::Tokenizer& tokenizer,
                                                             const ConstraintArguments& arguments,
                                                             std::string_view prompt,
                                                             const chat::ThinkingMarks& own) {
  chat::AnswerForm form;
  if (!arguments.json_schema.empty()) {
    form = {chat::AnswerForm::Kind::kSchema, arguments.json_schema};
    if (form.text.find('{') == std::string::npos) {
      SLUICE_ASSIGN(form.text, read_text_file(context, arguments.json_schema));
    }
    // As llama.cpp has it.
    if (form.text == "{}") form.kind = chat::AnswerForm::Kind::kObject;
  } else if (!arguments.grammar.empty()) {
    form = {chat::AnswerForm::Kind::kLark, arguments.grammar};
    if (form.text.find("start:") == std::string::npos) {
      SLUICE_ASSIGN(form.text, read_text_file(context, arguments.grammar));
    }
  } else {
    return std::nullopt;
  }
  return chat::constrain_answer(tokenizer, form, prompt, own);
}

EngineUse generation_use(const GenerationArguments& arguments) {
  return {.logits_rows = 1 + draft_tokens(arguments.draft),
          .real_text = true,
          .besides_bytes_max = kBesidesBytes};
}

Reasoning reasoning_of(const GenerationArguments& arguments) {
  if (arguments.reasoning == "off") return Reasoning::kOff;
  return arguments.reasoning == "hide" ? Reasoning::kHide : Reasoning::kOn;
}

Result<chat::ChatModel> open_chat(Context& context, const RunningModel& running,
                                  const GenerationArguments& arguments) {
  std::string text;
  if (!arguments.template_file.empty()) {
    SLUICE_ASSIGN(text, read_text_file(context, arguments.template_file));
  }
  return chat::open_chat_model(running.engine, text);
}

Result<runtime::SamplerOptions> sampler_options(const runtime::Engine& engine,
                                                const GenerationArguments& arguments,
                                                double default_temperature) {
  const auto chosen = [&](const std::optional<double>& given, std::string_view key,
                          double fallback) {
    if (given) return static_cast<float>(*given);
    return static_cast<float>(model_setting(engine, key).value_or(fallback));
  };
  runtime::SamplerOptions options;
  const double own = samples_by_default(engine) ? default_temperature : 0;
  options.temperature = chosen(arguments.temperature, "temperature", own);
  options.top_p = chosen(arguments.top_p, "top_p", 1);
  options.min_p = chosen(arguments.min_p, "min_p", 0);
  options.top_k = arguments.top_k ? static_cast<size_t>(*arguments.top_k)
                                  : static_cast<size_t>(model_setting(engine, "top_k").value_or(0));
  options.typical_p = static_cast<float>(arguments.typical);
  options.repetition_penalty = static_cast<float>(arguments.repetition_penalty);
  options.presence_penalty = static_cast<float>(arguments.presence_penalty);
  options.frequency_penalty = static_cast<float>(arguments.frequency_penalty);
  options.penalty_last_n = static_cast<size_t>(arguments.penalty_last_n);
  options.seed = arguments.seed ? *arguments.seed : std::random_device{}();
  for (const std::string& text : arguments.logit_bias) {
    SLUICE_ASSIGN(options.logit_bias.emplace_back(), parse_bias(text));
  }
  return options;
}

Result<runtime::Sampler> make_sampler(Context& context, const runtime::Engine& engine,
                                      const GenerationArguments& arguments,
                                      double default_temperature) {
  SLUICE_ASSIGN(auto options, sampler_options(engine, arguments, default_temperature));
  return runtime::Sampler::open(std::move(options), engine.info().vocabulary,
                                kernels::layer_ops(context.simd));
}

chat::Choose choose_with(runtime::Sampler& sampler) {
  return [&sampler](std::span<const float> logits, std::span<const uint32_t> tokens) {
    return sampler.sample(logits, tokens, tokens.size());
  };
}

chat::GenerateOptions generate_options(const GenerationArguments& arguments, chat::Draft* draft) {
  chat::GenerateOptions options;
  options.tokens_max = static_cast<size_t>(arguments.tokens_max);
  options.stops = arguments.stops;
  options.ignore_end = arguments.ignore_end;
  options.context_shift = arguments.context_shift;
  options.draft = draft;
  return options;
}

Result<std::string> system_prompt(Context& context, const GenerationArguments& arguments) {
  if (arguments.system_file.empty()) return arguments.system;
  return read_text_file(context, arguments.system_file);
}

Result<std::map<std::string, std::string>> template_variables(
    const GenerationArguments& arguments) {
  std::map<std::string, std::string> variables;
  if (arguments.reasoning == "off") variables["enable_thinking"] = "false";
  if (arguments.template_arguments.empty()) return variables;
  SLUICE_ASSIGN(const Json json, parse_template_arguments(arguments.template_arguments));
  for (const auto& [name, value] : json.items()) variables[name] = dump_json(value);
  return variables;
}

std::string generation_text(const chat::Generation& generation, const runtime::Engine& engine) {
  const runtime::MemoryNeed& need = engine.memory();
  const size_t run = generation.prompt_tokens - generation.reused_tokens;
  std::string text = fmt::format("prompt: {} tokens", generation.prompt_tokens);
  if (generation.reused_tokens > 0) text += fmt::format(", {} kept", generation.reused_tokens);
  text += fmt::format(", {:.1f} tokens/s\ngeneration: {} tokens, {:.1f} tokens/s",
                      rate(run, generation.prefill_s), generation.tokens,
                      rate(generation.tokens, generation.decode_s));
  if (generation.drafted > 0)
    text += fmt::format(
        ", {} of {} guesses right ({:.2f} tokens a step; guessing took {:.0f} % of the time)",
        generation.accepted, generation.drafted,
        static_cast<double>(generation.tokens) / static_cast<double>(generation.steps),
        100 * generation.draft_s / generation.decode_s);
  if (generation.finish == chat::Finish::kLength) text += ", cut at --max-tokens";
  if (generation.finish == chat::Finish::kContext) text += ", the context is full";
  return text + stream_text(engine.statistics()) +
         fmt::format(
             "\npeak memory: {}; with a full context {} = weights {} + keys and values {} + "
             "scratch {} + program {}{}\n",
             bytes_text(peak_resident_bytes()), bytes_text(need.total()), bytes_text(need.weights),
             bytes_text(need.kv), bytes_text(need.scratch), bytes_text(need.program),
             (need.states > 0 ? " + recurrent states " + bytes_text(need.states) : "") +
                 (need.digests > 0 ? " + digests of pages " + bytes_text(need.digests) : "") +
                 (need.draft > 0 ? " + the draft model " + bytes_text(need.draft) : ""));
}

Json generation_json(const chat::Generation& generation, const runtime::Engine& engine) {
  const runtime::MemoryNeed& need = engine.memory();
  const runtime::StreamStatistics statistics = engine.statistics();
  return {{"text", generation.text},
          {"finish", chat::finish_name(generation.finish)},
          {"prompt_tokens", generation.prompt_tokens},
          {"reused_tokens", generation.reused_tokens},
          {"tokens", generation.tokens},
          {"drafted", generation.drafted},
          {"accepted", generation.accepted},
          {"steps", generation.steps},
          {"draft_s", generation.draft_s},
          {"prefill_s", generation.prefill_s},
          {"decode_s", generation.decode_s},
          {"mask_s", generation.mask_s},
          {"complete", generation.complete},
          {"peak_resident_bytes", peak_resident_bytes()},
          {"disk_bytes_read", statistics.bytes_read},
          {"experts_requested", statistics.experts_requested},
          {"experts_in_memory", statistics.experts_there},
          {"guesses", statistics.guesses},
          {"guesses_right", statistics.guesses_right},
          {"memory", memory_json(need)}};
}

Json memory_json(const runtime::MemoryNeed& need) {
  return {{"weights", need.weights}, {"kv", need.kv},           {"states", need.states},
          {"scratch", need.scratch}, {"program", need.program}, {"digests", need.digests},
          {"draft", need.draft},     {"total", need.total()}};
}

}  // namespace sluice::cli
