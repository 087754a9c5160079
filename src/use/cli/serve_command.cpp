// `sluice serve`: a model for other programs, over HTTP.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>

#include "base/machine.h"
#include "base/units.h"
#include "cli/generation.h"
#include "cli/model.h"
#include "cli/report_data.h"
#include "report/page.h"
#include "server/api.h"
#include "server/web_page.h"

namespace sluice::cli {
namespace {

constexpr size_t kSlotsMax = 64;
constexpr size_t kKeyBytesMin = 16;
// How long answers may go on once the server was told to stop.
constexpr double kGraceS = 10;

struct Options {
  std::string model, template_file, api_key, api_key_file;
  std::vector<std::string> aliases, hosts, origins;
  EngineArguments engine;
  server::HttpServerOptions http;
  server::SchedulerOptions scheduler;
  uint64_t slots = 0, tokens_max = 0;
};

// For each token of the vocabulary: the scheduler's sampler; the trie by which answers keep to a
// schema, which the first such request makes (measured: 470 bytes for 49,152 tokens); and where an
// answer stands in its schema (measured: 1 to 2 MB there), for each session.
constexpr uint64_t kSamplerBytes = 28, kTrieBytes = 480, kStandBytes = 40;
// Encoding a prompt, for each of its tokens, by the threads that do so.
constexpr uint64_t kEncodingBytes = 2 * 256;

EngineUse use_of(size_t slots) {
  return {.sessions = slots,
          .logits_rows = slots,
          .real_text = true,
          .program_bytes_token = kEncodingBytes,
          .program_bytes_word = kSamplerBytes + kTrieBytes + kStandBytes * slots};
}

// As many sessions as asked for. Left to us, four; fewer where their keys and values would take
// the room of weights, which would then be read from disk again and again.
Result<RunningModel> plan_slots(Context& context, Options& options) {
  if (options.slots > 0) {
    options.scheduler.slots = options.slots;
    return plan_engine(context, options.model, options.engine, use_of(options.slots));
  }
  for (const size_t slots : {4, 2}) {
    auto running = plan_engine(context, options.model, options.engine, use_of(slots));
    if (!running) continue;
    const runtime::MemoryNeed& need = running->engine->memory();
    const bool resident = running->engine->info().disk_bytes_token == 0;
    if (!resident && need.kv + need.states > need.total() / 8) continue;
    options.scheduler.slots = slots;
    return running;
  }
  options.scheduler.slots = 1;
  return plan_engine(context, options.model, options.engine, use_of(1));
}

Status check_key(const Options& options) {
  const bool loopback = server::is_loopback(options.http.host);
  const std::string& key = options.http.guard.token;
  if (key.empty() && !loopback)
    return fail(ErrorCode::kInvalidArgument,
                "--host {} can be reached from other machines; give --api-key-file with a key that "
                "clients must know",
                options.http.host);
  if (!key.empty() && !loopback && key.size() < kKeyBytesMin)
    return fail(ErrorCode::kInvalidArgument, "--api-key: {} characters at least, found {}",
                kKeyBytesMin, key.size());
  return {};
}

Status read_key(Context& context, Options& options) {
  std::string& key = options.http.guard.token;
  key = options.api_key;
  if (!options.api_key_file.empty()) {
    SLUICE_ASSIGN(const auto source, context.storage->open_source(options.api_key_file));
    SLUICE_ASSIGN(key, io::read_text(*source, 4096));
    while (!key.empty() && (key.back() == '\n' || key.back() == '\r')) key.pop_back();
    if (key.empty()) return fail(ErrorCode::kInvalidArgument, "{} is empty", options.api_key_file);
  }
  return check_key(options);
}

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

Result<server::ApiOptions> api_options(Context& context, const Options& options,
                                       const runtime::Engine& engine) {
  server::ApiOptions api;
  api.name = name_of(options.model);
  api.aliases = options.aliases;
  SLUICE_ASSIGN(api.sampling, sampler_options(engine, {}, 1));
  api.tokens_max = options.tokens_max;
  const MemoryInfo memory = detect_memory();
  api.memory_limit_bytes = memory.usable();
  if (!options.engine.memory.empty()) {
    SLUICE_ASSIGN(api.memory_limit_bytes, parse_bytes(options.engine.memory));
  }
  const server::Page page = server::web_page();
  api.page = page.html;
  api.page_policy = page.content_security_policy;
  api.report = report_of(context, engine.info().path);
  return api;
}

// Says where, on standard output for programs that started this one.
void announce(Context& context, const Options& options, const runtime::Engine& engine,
              const server::HttpServer& http) {
  const bool six = options.http.host.find(':') != std::string::npos;
  const std::string host = six ? "[" + options.http.host + "]" : options.http.host;
  const std::string url = fmt::format("http://{}:{}", host, http.port());
  context.console->info(
      fmt::format("{} sessions at once; listening on {}", options.scheduler.slots, url));
  if (context.options.json)
    context.print_json({{"url", url},
                        {"port", http.port()},
                        {"slots", options.scheduler.slots},
                        {"memory", memory_json(engine.memory())}});
  std::fflush(stdout);
}

// Until the program is told to stop; answers may then end.
void serve_until_cancelled(Context& context, server::HttpServer& http, server::Api& api,
                           server::Scheduler& scheduler) {
  std::optional<Stopwatch> stopping;
  http.run([&] {
    if (!context.cancel->cancelled()) return;
    if (!stopping) {
      stopping.emplace();
      http.stop_listening();
      scheduler.drain();
    }
    if (api.running() == 0 || stopping->seconds() > kGraceS) http.stop();
  });
}

Result<int> run(Context& context, Options options) {
  SLUICE_TRY(read_key(context, options));
  SLUICE_ASSIGN(const RunningModel running, plan_slots(context, options));
  GenerationArguments generation;
  generation.template_file = options.template_file;
  SLUICE_ASSIGN(const chat::ChatModel model, open_chat(context, running, generation));
  SLUICE_ASSIGN(server::ApiOptions described, api_options(context, options, *running.engine));
  SLUICE_TRY(load_weights(context, running));
  server::Scheduler scheduler(model, kernels::layer_ops(context.simd), options.scheduler);
  server::Api api(model, scheduler, std::move(described));
  options.http.guard.loopback = server::is_loopback(options.http.host);
  options.http.guard.hosts = options.hosts;
  options.http.guard.origins = options.origins;
  SLUICE_ASSIGN(const auto http,
                server::HttpServer::open(
                    options.http, [&](std::shared_ptr<server::Exchange> e) { api.handle(e); },
                    [](int status, std::string_view message, std::string_view code) {
                      return server::error_body(status, message, code);
                    },
                    [&](int status) { api.count_refused(status); }));
  api.attach(*http);
  announce(context, options, *running.engine, *http);
  serve_until_cancelled(context, *http, api, scheduler);
  api.stop();
  scheduler.stop();
  SLUICE_TRY(finish_running(context, running));
  return kExitSuccess;
}

void add_limits(CLI::App& command, Options& options) {
  command
      .add_option("--queue", options.scheduler.queue_max, "requests that may wait for a session")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  command.add_option("--connections", options.http.connections_max, "clients connected at once")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  command
      .add_option("-n,--max-tokens", options.tokens_max,
                  "the most tokens of an answer; 0: until the context is full")
      ->capture_default_str();
  command
      .add_option("--max-seconds", options.scheduler.job_s_max, "the longest that an answer takes")
      ->check(CLI::Range(1.0, 1e6))
      ->capture_default_str();
}

}  // namespace

void add_serve(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("serve", "serve a model over HTTP, as OpenAI's API has it");
  command
      ->add_option("MODEL", options->model,
                   "a folder with safetensors, a .gguf file, or the name of a downloaded model")
      ->type_name("PATH")
      ->required();
  command->add_option("--host", options->http.host, "the address to listen on")
      ->capture_default_str();
  command->add_option("--port", options->http.port, "the port; 0: any that is free")
      ->capture_default_str();
  command
      ->add_option("--parallel", options->slots,
                   "sessions at once; 0: four, or fewer where memory is short")
      ->check(CLI::Range(size_t{0}, kSlotsMax))
      ->capture_default_str();
  command->add_option("--alias", options->aliases, "another name of the model");
  CLI::Option* key = command->add_option("--api-key", options->api_key,
                                         "a key that clients must know; other users of the machine "
                                         "can see it here, but not in the environment");
  command->add_option("--api-key-file", options->api_key_file, "a file with the key")
      ->type_name("FILE")
      ->excludes(key);
  command->add_option("--allow-host", options->hosts, "a name that the server is known by");
  command->add_option("--allow-origin", options->origins,
                      "a site whose pages may ask, such as https://example.org");
  command->add_option("--chat-template-file", options->template_file,
                      "a Jinja template in place of the model's own");
  add_limits(*command, *options);
  add_engine_options(*command, options->engine);
  command->footer(
      "Examples:\n"
      "  sluice serve Qwen3-8B-6GB\n"
      "  sluice serve Qwen3-8B-6GB --parallel 8 --context 8192 --port 8081\n"
      "  sluice serve Qwen3-8B-6GB --host 0.0.0.0 --api-key-file key.txt");
  command->callback([&action, options] {
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
