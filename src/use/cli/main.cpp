// The program: parses the command line, runs one command, turns its outcome into an exit code.
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "cli/context.h"
#include "cli/usage_text.h"
#include "sluice_version.h"

namespace sluice::cli {
namespace {

// The one piece of global state: a signal handler can reach nothing else.
CancelToken interrupted;

extern "C" void on_interrupt(int signal_number) {
  interrupted.cancel();
  std::signal(signal_number, SIG_DFL);  // a second Ctrl-C ends the program at once
}

void add_global_options(CLI::App& app, GlobalOptions& options) {
  app.add_flag("--json", options.json, "machine-readable result on stdout");
  app.add_flag("-q,--quiet", options.quiet, "no progress or notes; results and errors only");
  app.add_option("--threads", options.threads, "worker threads; 0: all cores")
      ->check(CLI::Range(0u, 1024u))
      ->capture_default_str();
  app.add_option("--simd", options.simd,
                 "instruction set: scalar, neon, avx2 or avx512 (default: the widest); results do "
                 "not depend on it");
}

// Memory grows by some three megabytes a worker; more cores than these would break the promise of
// 256 MB and wait for the disk anyway.
constexpr unsigned kWorkersMax = 48;

// Every shard of a model keeps one file open; macOS allows 256 by default.
void raise_file_limit() {
  constexpr rlim_t kFilesWanted = 8192;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= kFilesWanted) return;
  limit.rlim_cur = std::min(kFilesWanted, limit.rlim_max);
  setrlimit(RLIMIT_NOFILE, &limit);
}

Result<void> prepare(Context& context) {
  raise_file_limit();
  context.cpu = detect_cpu();
  context.simd = context.cpu.simd;
  if (!context.options.simd.empty()) {
    SLUICE_ASSIGN(context.simd, parse_simd_level(context.options.simd, context.cpu));
  }
  context.workers = context.options.threads > 0 ? context.options.threads
                                                : std::min(context.cpu.cores, kWorkersMax);
  context.console = std::make_unique<Console>(context.options.quiet, isatty(STDERR_FILENO) == 1);
  context.cancel = &interrupted;
  return {};
}

int report(Context& context, const Error& error) {
  if (context.console == nullptr) {
    std::fprintf(stderr, "error: %s\n", error.message.c_str());
  } else if (error.code == ErrorCode::kCancelled) {
    context.console->error("interrupted; run the same command again to go on where it stopped");
  } else {
    context.console->error(error.message);
  }
  if (context.options.json)
    context.print_json(
        {{"error", {{"code", error_code_name(error.code)}, {"message", error.message}}}});
  return exit_code_of(error.code);
}

void add_commands(CLI::App& app, Action& action) {
  add_fit(app, action);
  add_inspect(app, action);
  add_analyze(app, action);
  add_plan(app, action);
  add_calibrate(app, action);
  add_quantize(app, action);
  add_verify(app, action);
  add_merge(app, action);
  add_pull(app, action);
  add_push(app, action);
  add_run(app, action);
  add_chat(app, action);
  add_top(app, action);
  add_serve(app, action);
  add_agent(app, action);
  add_eval(app, action);
  add_compare(app, action);
  add_bench(app, action);
  add_devices(app, action);
  add_report(app, action);
  add_doctor(app, action);
  add_completions(app, action);
  add_man(app, action);
  for (CLI::App* command : app.get_subcommands({}))
    command->footer(command->get_footer() +
                    "\n\nEvery command also takes --json, --quiet, --threads N and --simd NAME.");
}

int run(int argument_count, char** arguments) {
  CLI::App app("Fits any open-weights language model into the memory you have.", "sluice");
  app.set_version_flag("--version", std::string(kVersion));
  app.require_subcommand(1);
  app.fallthrough();
  app.footer(
      "Examples:\n"
      "  sluice fit ./Qwen3-8B --budget 6GB -o Qwen3-8B-6GB\n"
      "  sluice inspect ./Qwen3-8B\n"
      "  sluice COMMAND --help");
  Context context;
  context.command_line = "sluice";
  for (int i = 1; i < argument_count; ++i) context.command_line += " " + shell_word(arguments[i]);
  add_global_options(app, context.options);
  Action action;
  add_commands(app, action);
  context.commands = describe_commands(app);
  context.storage = io::local_storage();
  const Environment environment = [](const char* name) { return std::getenv(name); };
  context.environment = environment;
  context.config_folder = config_folder(environment);
  Settings settings;
  const Status settled = settings.apply(app, *context.storage, environment);
  app.failure_message([&](const CLI::App*, const CLI::Error& error) {
    return fmt::format("error: {}\nRun with --help for more information.\n",
                       usage_text(app, context.commands, error, argument_count, arguments));
  });
  try {
    app.parse(argument_count, arguments);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitSuccess : kExitUsage;
  }
  if (!settled) {
    report(context, settled.error());
    return kExitUsage;
  }
  context.settings = settings.list();
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
  if (auto status = prepare(context); !status) {
    report(context, status.error());
    return kExitUsage;
  }
  const Result<int> outcome = action(context);
  const int code = outcome ? *outcome : report(context, outcome.error());
  if (std::ferror(stdout) == 0) return code;
  context.console->error("writing the result to standard output failed");
  return code == kExitSuccess ? kExitIo : code;
}

}  // namespace

}  // namespace sluice::cli

int main(int argument_count, char** arguments) {
  return sluice::cli::run(argument_count, arguments);
}
