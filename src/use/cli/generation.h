// What `run`, `chat`, `eval` and `bench` share: opening a model to run it, and the options of
// engine and sampler.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "chat/chat_model.h"
#include "chat/generate.h"
#include "chat/reasoning.h"
#include "cli/context.h"
#include "runtime/expert_trace.h"
#include "runtime/sampler/sampler.h"

namespace sluice::cli {

struct EngineArguments {
  uint64_t context_tokens = 0;  // 0: the engine's choice
  std::string kv = "f16", activations = "auto", compat = "transformers", memory = {},
              reads = "auto", expert_trace = {};
  // add_engine_options() makes it auto; who measures or records takes the processor, whose results
  // are the same on every machine.
  std::string device = "cpu";
  bool no_expert_profile = false, no_lookahead = false, verify_reads = false;
};
void add_engine_options(CLI::App& command, EngineArguments& arguments);
// What --device takes.
std::vector<std::string> device_names();

// Plans a model on the device that is asked for. With auto, the processor takes what the GPU cannot
// run, and the console says why.
Result<std::shared_ptr<runtime::Engine>> plan_on_device(Context& context, const std::string& path,
                                                        const EngineArguments& arguments,
                                                        runtime::EngineOptions options,
                                                        ThreadPool& pool);

// What a command will do with an engine, as far as memory is set aside for it.
struct EngineUse {
  size_t sessions = 1;      // at once
  size_t logits_rows = 64;  // computed together
  bool real_text = false;   // whose choice of experts is worth keeping for the next run
  // As in runtime::EngineOptions.
  uint64_t besides_bytes_max = 0, program_bytes_token = 0, program_bytes_word = 0;
  uint64_t program_bytes_min = 0;
};

// A model and the threads that run it. The engine uses the pool, so it goes first.
struct RunningModel {
  std::unique_ptr<ThreadPool> pool;
  std::shared_ptr<runtime::Engine> engine;
  std::shared_ptr<runtime::ExpertTrace> expert_trace;  // where one is wanted
  std::string expert_trace_path;
  bool keeps_profile = false;  // of experts, from one run to the next
};
// Reads headers; load_weights() the rest. What needs no weights belongs in between: it may fail,
// and takes memory for a moment that the weights can use afterwards.
Result<RunningModel> plan_engine(Context& context, const std::string& path,
                                 const EngineArguments& arguments, const EngineUse& use = {});
Status load_weights(Context& context, const RunningModel& running);
// When all is done: writes what was recorded.
Status finish_running(Context& context, const RunningModel& running);

enum class Reasoning { kOn, kOff, kHide };

// What guesses ahead: cli/drafting.h.
struct DraftArguments {
  std::string model;
  bool lookup = false;
  uint64_t tokens = 0;  // 0: by what guesses
};
void add_draft_options(CLI::App& command, DraftArguments& arguments);
// The most guesses for a step; 0: nothing guesses.
size_t draft_tokens(const DraftArguments& arguments);

struct GenerationArguments {
  std::string system, system_file, template_file, template_arguments, reasoning = "on";
  std::vector<std::string> stops, logit_bias;
  // Not given: generation_config.json's, and where that is silent the command's own.
  std::optional<double> temperature, top_p, min_p;
  std::optional<uint64_t> top_k, seed;
  double typical = 1, repetition_penalty = 1, presence_penalty = 0, frequency_penalty = 0;
  uint64_t penalty_last_n = 64, tokens_max = 0;
  bool ignore_end = false, context_shift = false, raw = false;
  DraftArguments draft;
};

// What a single answer has to be. At most one is given.
struct ConstraintArguments {
  std::string json_schema, grammar;
};
void add_constraint_options(CLI::App& command, ConstraintArguments& arguments);
// None where nothing is asked for. prompt: what the model continues. own: thinking that it may open
// by itself.
Result<std::optional<tokenizer::Constraint>> make_constraint(Context& context,
                                                             const tokenizer::Tokenizer& tokenizer,
                                                             const ConstraintArguments& arguments,
                                                             std::string_view prompt,
                                                             const chat::ThinkingMarks& own);
void add_generation_options(CLI::App& command, GenerationArguments& arguments);

// Generating text: the program and scratch stay within 64 MB together.
EngineUse generation_use(const GenerationArguments& arguments);

Reasoning reasoning_of(const GenerationArguments& arguments);

// template_file read, the model's tokenizer and template opened.
Result<chat::ChatModel> open_chat(Context& context, const RunningModel& running,
                                  const GenerationArguments& arguments);

// default_temperature: where neither the command line nor the model says anything.
Result<runtime::SamplerOptions> sampler_options(const runtime::Engine& engine,
                                                const GenerationArguments& arguments,
                                                double default_temperature);
Result<runtime::Sampler> make_sampler(Context& context, const runtime::Engine& engine,
                                      const GenerationArguments& arguments,
                                      double default_temperature);
chat::Choose choose_with(runtime::Sampler& sampler);

// draft: may be null.
chat::GenerateOptions generate_options(const GenerationArguments& arguments, chat::Draft* draft);

// The system prompt given, as text or by file; empty: none.
Result<std::string> system_prompt(Context& context, const GenerationArguments& arguments);

// The template's variables: --template-args, and what --reasoning stands for.
Result<std::map<std::string, std::string>> template_variables(const GenerationArguments& arguments);

// "prompt: 31 tokens, 412.0 tokens/s\ngeneration: …" with peak memory and what was computed for a
// full context, and as JSON.
std::string generation_text(const chat::Generation& generation, const runtime::Engine& engine);
Json generation_json(const chat::Generation& generation, const runtime::Engine& engine);
// What was computed, part by part, in bytes.
Json memory_json(const runtime::MemoryNeed& need);

}  // namespace sluice::cli
