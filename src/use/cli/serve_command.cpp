// `sluice serve`: models for other programs, over HTTP.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>

#include "base/machine.h"
#include "base/units.h"
#include "cli/agent_tools.h"
#include "cli/served_models.h"
#include "server/api.h"
#include "server/web_page.h"

namespace sluice::cli {
namespace {

constexpr size_t kSlotsMax = 64;
constexpr size_t kKeyBytesMin = 16;
// How long answers may go on once the server was told to stop.
constexpr double kGraceS = 10;

struct Options {
  std::string api_key, api_key_file;
  std::vector<std::string> hosts, origins;
  ServingArguments serving;
  server::HttpServerOptions http;
  uint64_t tokens_max = 0;
  std::string agent_folder;
  std::vector<std::string> agent_tools;  // empty: all that can be used here
  SearchArguments search;
  server::AgentOffer agent;
  server::SessionStoreOptions sessions;
  std::string session_bytes = "20GB";
};

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

// Tools are tried now, so that what lacks is said at the start; each run makes its own.
Status offer_agent(Context& context, Options& options) {
  if (options.agent_folder.empty()) return {};
  AgentArguments arguments;
  arguments.folder = options.agent_folder;
  arguments.tools = options.agent_tools;
  arguments.search = options.search;
  SLUICE_ASSIGN(const Tools tools, make_tools(context, arguments));
  for (const auto& tool : tools) options.agent.tools.emplace_back(tool->name());
  options.agent.make_tools = [folder = options.agent_folder,
                              search = options.search](const std::vector<std::string>& names) {
    return make_tools(names, folder, search);
  };
  return {};
}

Result<server::ApiOptions> api_options(const Options& options) {
  server::ApiOptions api;
  api.tokens_max = options.tokens_max;
  const MemoryInfo memory = detect_memory();
  api.memory_limit_bytes = memory.usable();
  const std::string& limit = options.serving.engine.memory;
  if (!limit.empty()) {
    SLUICE_ASSIGN(api.memory_limit_bytes, parse_bytes(limit));
  }
  api.sessions = options.sessions;
  SLUICE_ASSIGN(api.sessions.bytes_max, parse_bytes(options.session_bytes));
  if (!api.sessions.folder.empty()) {
    std::error_code problem;
    std::filesystem::create_directories(api.sessions.folder, problem);
    if (problem)
      return fail(ErrorCode::kIo, "--sessions {}: {}", api.sessions.folder, problem.message());
  }
  const server::Page page = server::web_page();
  api.page = page.html;
  api.page_policy = page.content_security_policy;
  api.agent = options.agent;
  return api;
}

// Says where, on standard output for programs that started this one.
void announce(Context& context, const Options& options, const server::HttpServer& http,
              const server::ModelRegistry& models) {
  const bool six = options.http.host.find(':') != std::string::npos;
  const std::string host = six ? "[" + options.http.host + "]" : options.http.host;
  const std::string url = fmt::format("http://{}:{}", host, http.port());
  const size_t slots = models.state().scheduler.slots.size();
  context.console->info(fmt::format("{} sessions at once; listening on {}", slots, url));
  if (context.options.json)
    context.print_json({{"url", url},
                        {"port", http.port()},
                        {"slots", slots},
                        {"memory", memory_json(models.loaded(0)->chat.engine->memory())}});
  std::fflush(stdout);
}

// Until the program is told to stop; answers may then end.
void serve_until_cancelled(Context& context, server::HttpServer& http, server::Api& api,
                           server::ModelRegistry& models) {
  std::optional<Stopwatch> stopping;
  http.run([&] {
    models.advance();
    if (!context.cancel->cancelled()) return;
    if (!stopping) {
      stopping.emplace();
      http.stop_listening();
      models.drain();
    }
    if (api.running() == 0 || stopping->seconds() > kGraceS) http.stop();
  });
}

Result<int> run(Context& context, Options options) {
  SLUICE_TRY(read_key(context, options));
  SLUICE_TRY(offer_agent(context, options));
  SLUICE_ASSIGN(const auto served, ServedModels::open(context, options.serving));
  SLUICE_ASSIGN(server::ApiOptions described, api_options(options));
  SLUICE_ASSIGN(auto first, served->load(0, 0));
  std::optional<server::ModelRegistry> models(
      std::in_place, served->cards(),
      [&](size_t index, uint64_t held_bytes) { return served->load(index, held_bytes); },
      options.serving.scheduler.queue_max);
  models->adopt(0, std::move(first));
  server::Api api(*models, std::move(described));
  options.http.guard.loopback = server::is_loopback(options.http.host);
  options.http.guard.hosts = options.hosts;
  options.http.guard.origins = options.origins;
  SLUICE_ASSIGN(auto http,
                server::HttpServer::open(
                    options.http, [&](std::shared_ptr<server::Exchange> e) { api.handle(e); },
                    [](int status, std::string_view message, std::string_view code) {
                      return server::error_body(status, message, code);
                    },
                    [&](int status) { api.count_refused(status); }));
  api.attach(*http);
  announce(context, options, *http, *models);
  serve_until_cancelled(context, *http, api, *models);
  api.stop();
  models->stop();
  http.reset();  // and with it whatever holds a model
  models.reset();
  SLUICE_TRY(served->closed());
  return kExitSuccess;
}

void add_limits(CLI::App& command, Options& options) {
  command
      .add_option("--queue", options.serving.scheduler.queue_max,
                  "requests that may wait for a session")
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
      .add_option("--max-seconds", options.serving.scheduler.job_s_max,
                  "the longest that an answer takes")
      ->check(CLI::Range(1.0, 1e6))
      ->capture_default_str();
}

void add_agent_offer(CLI::App& command, Options& options) {
  CLI::Option* folder =
      command
          .add_option("--agent-folder", options.agent_folder,
                      "let clients have an agent work in this folder, and nothing outside it")
          ->type_name("PATH");
  command
      .add_option("--agent-tools", options.agent_tools,
                  "the agent's tools: search, shell, files; all unless given")
      ->delimiter(',')
      ->check(CLI::IsMember(tool_names()))
      ->needs(folder);
  command
      .add_flag("--agent-yes-read-only", options.agent.yes_read_only,
                "its reading of files needs no approval")
      ->needs(folder);
  command.add_option("--agent-max", options.agent.runs_max, "agents at work at once")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  command.add_option("--agent-max-steps", options.agent.steps_max, "answers of the model in a run")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command
      .add_option("--agent-max-seconds", options.agent.run_s_max, "the longest that a run takes")
      ->check(CLI::Range(1.0, 1e6))
      ->capture_default_str();
  command
      .add_option("--agent-approval-seconds", options.agent.approval_s_max,
                  "how long a run waits for an approval before it goes on without")
      ->check(CLI::Range(1.0, 1e6))
      ->capture_default_str();
  add_search_options(command, options.search);
}

void add_sessions(CLI::App& command, Options& options) {
  CLI::Option* folder = command
                            .add_option("--sessions", options.sessions.folder,
                                        "where clients may keep sessions (/v1/sessions), so that "
                                        "what was read need not be read again")
                            ->type_name("FOLDER");
  command.add_option("--sessions-max", options.sessions.count_max, "sessions kept at a time")
      ->check(CLI::Range(size_t{1}, size_t{100'000}))
      ->needs(folder)
      ->capture_default_str();
  command.add_option("--sessions-size", options.session_bytes, "the most that all of them take")
      ->type_name("SIZE")
      ->needs(folder)
      ->capture_default_str();
}

}  // namespace

void add_serve(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("serve", "serve models over HTTP, as OpenAI's API has it");
  command
      ->add_option("MODEL", options->serving.models,
                   "a folder with safetensors, a .gguf file, or the name of a downloaded model; of "
                   "several, the first is loaded at once, and others when they are asked for")
      ->type_name("PATH")
      ->required();
  command->add_option("--host", options->http.host, "the address to listen on")
      ->capture_default_str();
  command->add_option("--port", options->http.port, "the port; 0: any that is free")
      ->capture_default_str();
  command
      ->add_option("--parallel", options->serving.slots,
                   "sessions at once; 0: four, or fewer where memory is short")
      ->check(CLI::Range(size_t{0}, kSlotsMax))
      ->capture_default_str();
  command
      ->add_option("--alias", options->serving.aliases,
                   "NAME: another name of the (first) model; NAME=MODEL: of the model named so")
      ->type_name("NAME");
  CLI::Option* key = command->add_option("--api-key", options->api_key,
                                         "a key that clients must know; other users of the machine "
                                         "can see it here, but not in the environment");
  command->add_option("--api-key-file", options->api_key_file, "a file with the key")
      ->type_name("FILE")
      ->excludes(key);
  command->add_option("--allow-host", options->hosts, "a name that the server is known by");
  command->add_option("--allow-origin", options->origins,
                      "a site whose pages may ask, such as https://example.org");
  command->add_option("--chat-template-file", options->serving.template_file,
                      "a Jinja template in place of the model's own");
  add_limits(*command, *options);
  add_agent_offer(*command, *options);
  add_sessions(*command, *options);
  add_engine_options(*command, options->serving.engine);
  command->footer(
      "Examples:\n"
      "  sluice serve Qwen3-8B-6GB\n"
      "  sluice serve Qwen3-8B-6GB Qwen3-0.6B --alias small=Qwen3-0.6B\n"
      "  sluice serve Qwen3-8B-6GB --parallel 8 --context 8192 --port 8081\n"
      "  sluice serve Qwen3-8B-6GB --host 0.0.0.0 --api-key-file key.txt\n"
      "  sluice serve Qwen3-8B-6GB --agent-folder notes --agent-tools files,shell");
  command->callback([&action, options] {
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
