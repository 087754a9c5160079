// `sluice top`: a running server's gauges in the terminal.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>

#include "base/clock.h"
#include "cli/context.h"
#include "cli/full_screen.h"
#include "cli/server_gauges.h"
#include "cli/terminal.h"
#include "io/http_client.h"

namespace sluice::cli {
namespace {

constexpr const char* kDefaultAddress = "http://127.0.0.1:8080";
constexpr uint64_t kReplyBytesMax = 4 << 20;
constexpr unsigned kConnectSeconds = 3, kStallSeconds = 10;

struct Options {
  std::string address = kDefaultAddress, token;
  double interval_s = 1;
  bool once = false;
};

// Asks one server again and again.
class Watcher {
 public:
  Watcher(io::Url server, io::HttpOptions options)
      : server_(std::move(server)), client_(std::move(options)) {}

  Result<ServerSample> sample() {
    SLUICE_ASSIGN(const std::string metrics, body("metrics"));
    SLUICE_ASSIGN(const std::string slots, body("slots"));
    ServerSample sample;
    SLUICE_ASSIGN(sample.metrics, Metrics::parse(metrics, label("metrics")));
    SLUICE_ASSIGN(sample.slots, parse_slots(slots, label("slots")));
    sample.time_s = watch_.seconds();
    return sample;
  }

 private:
  std::string label(std::string_view name) const { return io::file_in(server_, name).label(); }

  Result<std::string> body(std::string_view name) {
    io::HttpRequest request;
    request.url = io::file_in(server_, name);
    request.body_bytes_max = kReplyBytesMax;
    auto reply = client_.exchange(request);
    if (!reply) return std::unexpected(reply.error().error);
    if (reply->status != 200)
      return std::unexpected(
          io::status_failure(*reply, request.url.label(), client_.options()).error);
    return std::move(reply->body);
  }

  const io::Url server_;
  io::HttpClient client_;
  const Stopwatch watch_;
};

std::string with_line_ends(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

// What a server that does not answer is told with; it may only be starting.
std::string problem_text(const Error& error) {
  return fmt::format("no figures, trying again: {}", error.message);
}

Result<int> once(Context& context, const Options& options, Watcher& watcher) {
  SLUICE_ASSIGN(ServerSample sample, watcher.sample());
  ServerGauges gauges(options.address);
  gauges.add(std::move(sample));
  if (context.options.json)
    context.print_json(gauges.json());
  else
    context.print(with_line_ends(gauges.lines(SIZE_MAX, SIZE_MAX, "")));
  return kExitSuccess;
}

// Until q, Ctrl-C or the end of input.
Result<int> live(Context& context, const Options& options, Watcher& watcher) {
  FullScreen screen;
  ServerGauges gauges(options.address);
  std::string problem = "asking";
  const bool styles = shows_styles();
  double next_s = 0;
  const Stopwatch watch;
  while (!context.cancel->cancelled()) {
    if (watch.seconds() >= next_s) {
      auto sample = watcher.sample();
      problem = sample ? "" : problem_text(sample.error());
      if (sample) gauges.add(std::move(*sample));
      next_s = watch.seconds() + options.interval_s;
    }
    const TerminalSize size = terminal_size();
    std::vector<std::string> lines = gauges.lines(size.columns, size.rows - 1, problem);
    lines.emplace_back("q quits");
    screen.draw(lines, styles);
    const double wait_s = std::max(0.0, next_s - watch.seconds());
    const auto key = screen.key(static_cast<int>(wait_s * 1000) + 1);
    if (key && (*key == 'q' || *key == 'Q' || *key == '\0' || *key == '\x04')) break;
  }
  return kExitSuccess;
}

Result<int> run(Context& context, const Options& options) {
  SLUICE_ASSIGN(const io::Url server, io::parse_url(options.address));
  io::HttpOptions http;
  http.token = options.token;
  http.token_origin = server.origin();
  http.connect_timeout_s = kConnectSeconds;
  http.low_speed_s = kStallSeconds;
  http.cancel = context.cancel;
  Watcher watcher(server, std::move(http));
  const bool terminal = isatty(STDIN_FILENO) == 1 && can_draw();
  if (options.once || context.options.json || !terminal) return once(context, options, watcher);
  return live(context, options, watcher);
}

}  // namespace

void add_top(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("top", "live gauges of a running server");
  command->add_option("URL", options->address, "where `sluice serve` listens")
      ->capture_default_str();
  command->add_option("--token", options->token, "the server's bearer token, where it wants one");
  command->add_option("--interval", options->interval_s, "seconds between two looks")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  command->add_flag("--once", options->once, "print the figures once and end");
  command->footer(
      "Examples:\n"
      "  sluice top\n"
      "  sluice top http://127.0.0.1:9000 --interval 5\n"
      "  sluice top --json | jq .decode_tokens_per_s");
  command->callback([&action, options] {
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
