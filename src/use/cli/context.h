// What every command receives: global options, the machine, and where output goes. Built once by
// main and passed down; there is no global state but the cancel flag that Ctrl-C sets.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "base/error.h"
#include "base/json.h"
#include "base/thread.h"
#include "cli/command_tree.h"
#include "cli/console.h"
#include "cli/settings.h"
#include "families/recipe.h"
#include "io/checkpoint.h"
#include "io/storage.h"

namespace CLI {
class App;
}

namespace sluice::cli {

enum ExitCode {
  kExitSuccess = 0,
  kExitCheckFailed = 1,
  kExitUsage = 2,
  kExitBadInput = 3,
  kExitIo = 4,
  kExitInterrupted = 5,
};

struct GlobalOptions {
  bool json = false;
  bool quiet = false;
  unsigned threads = 0;  // 0: all cores
  std::string simd;      // empty: the widest the processor offers
};

struct Context {
  GlobalOptions options;
  CpuInfo cpu;
  SimdLevel simd = SimdLevel::kScalar;
  unsigned workers = 1;
  std::unique_ptr<io::Storage> storage;
  std::unique_ptr<Console> console;
  const CancelToken* cancel = nullptr;
  CommandInfo commands;           // as built in, before settings
  std::vector<Setting> settings;  // what every option is, and why
  std::string config_folder;      // where config.toml and devices.toml would lie; may be empty
  Environment environment;        // getenv but in tests
  std::string command_line;       // as it was typed, quoted for a shell

  // Results go to stdout: as JSON with --json, as text otherwise.
  void print_json(const Json& json) const;
  void print(std::string_view text) const;
};

// What a parsed command line asks for; the int is an ExitCode. Empty until a command is chosen.
using Action = std::function<Result<int>(Context&)>;

// Each adds its subcommand; parsing fills action.
void add_inspect(CLI::App& app, Action& action);
void add_analyze(CLI::App& app, Action& action);
void add_plan(CLI::App& app, Action& action);
void add_calibrate(CLI::App& app, Action& action);
void add_quantize(CLI::App& app, Action& action);
void add_verify(CLI::App& app, Action& action);
void add_merge(CLI::App& app, Action& action);
void add_pull(CLI::App& app, Action& action);
void add_push(CLI::App& app, Action& action);
void add_run(CLI::App& app, Action& action);
void add_chat(CLI::App& app, Action& action);
void add_top(CLI::App& app, Action& action);
void add_serve(CLI::App& app, Action& action);
void add_agent(CLI::App& app, Action& action);
void add_eval(CLI::App& app, Action& action);
void add_compare(CLI::App& app, Action& action);
void add_bench(CLI::App& app, Action& action);
void add_fit(CLI::App& app, Action& action);
void add_devices(CLI::App& app, Action& action);
void add_report(CLI::App& app, Action& action);
void add_doctor(CLI::App& app, Action& action);
void add_completions(CLI::App& app, Action& action);
void add_man(CLI::App& app, Action& action);

int exit_code_of(ErrorCode code);

}  // namespace sluice::cli
