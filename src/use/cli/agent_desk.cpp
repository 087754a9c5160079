#include "cli/agent_desk.h"

#include <poll.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "chat/agent_events.h"
#include "chat/visible_text.h"
#include "cli/terminal.h"

namespace sluice::cli {
namespace {

constexpr std::string_view kMargin = "  | ", kContinued = "  : ";
constexpr size_t kColumnsMin = 20;
constexpr int kPollMs = 100;  // how soon Ctrl-C is noticed
constexpr size_t kReplyBytesMax = 100;
constexpr size_t kLinesWorthCounting = 20;
// Of what came out, which the model reads, and of why nothing did.
constexpr size_t kResultColumns = 60, kReasonColumns = 300;

// A line typed from now on: one that was typed before the question agrees to nothing. Nothing at
// the end of input, and after a cancellation.
std::optional<std::string> ask(std::string_view question, const CancelToken& cancel) {
  ::tcflush(STDIN_FILENO, TCIFLUSH);
  std::fputs(std::string(question).c_str(), stderr);
  std::string reply;
  while (!cancel.cancelled()) {
    pollfd input{STDIN_FILENO, POLLIN, 0};
    if (::poll(&input, 1, kPollMs) <= 0) continue;
    char c = 0;
    const ssize_t count = ::read(STDIN_FILENO, &c, 1);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    if (c == '\n') return reply;
    if (reply.size() < kReplyBytesMax) reply += c;
  }
  std::fputs("\n", stderr);
  return std::nullopt;
}

// As wide as it looks: how far a tabulator goes is the terminal's business.
std::string with_tabs_shown(std::string_view line) {
  std::string shown;
  for (const char c : line) {
    if (c == '\t')
      shown += "→   ";
    else
      shown += c;
  }
  return shown;
}

// The first line, and how many there are.
std::string summary_of(std::string_view text, size_t columns) {
  const size_t lines = static_cast<size_t>(std::ranges::count(text, '\n')) +
                       (text.empty() || text.ends_with('\n') ? 0 : 1);
  const std::string first(chat::fitting(text.substr(0, text.find('\n')), columns));
  return lines <= 1 ? first : fmt::format("{} … ({} lines)", first, lines);
}

}  // namespace

std::string with_margin(std::string_view text, size_t columns) {
  const size_t room = std::max(columns, kColumnsMin) - kMargin.size();
  std::string result;
  while (!text.empty()) {
    const std::string_view whole = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(whole.size() + 1, text.size()));
    const std::string shown = with_tabs_shown(whole);
    std::string_view line = shown;
    std::string_view margin = kMargin;
    do {
      const std::string_view piece = chat::fitting(line, room);
      result += fmt::format("{}{}\n", margin, piece);
      line.remove_prefix(piece.size());
      margin = kContinued;
    } while (!line.empty());
  }
  return result;
}

AgentDesk::AgentDesk(Context& context, const AgentArguments& arguments, Reasoning reasoning)
    : context_(context),
      arguments_(arguments),
      reasoning_(reasoning),
      asks_(isatty(STDIN_FILENO) == 1 && isatty(STDERR_FILENO) == 1) {}

Status AgentDesk::open() {
  if (tools_) return {};
  SLUICE_ASSIGN(Tools tools, make_tools(context_, arguments_));
  if (!arguments_.transcript.empty()) {
    transcript_.reset(std::fopen(arguments_.transcript.c_str(), "ae"));
    if (transcript_ == nullptr)
      return fail(ErrorCode::kIo, "{} cannot be written", arguments_.transcript);
  }
  tools_ = std::move(tools);
  return {};
}

void AgentDesk::begin_turn(bool markdown, PrintText print) {
  std::optional<MarkdownOptions> drawn;
  if (markdown) drawn.emplace(shows_styles(), terminal_size().columns);
  print_ = std::move(print);
  printer_.emplace("", reasoning_, drawn, print_);
}

void AgentDesk::end_turn() {
  printer_->finish();
  if (!printer_->ends_line()) (void)print_("\n");
  printer_.reset();
}

chat::AgentCallbacks AgentDesk::callbacks(const CancelToken& cancel) {
  return {
      [this](std::string_view delta, bool reasoning) { return text(delta, reasoning); },
      [this, &cancel](const chat::AgentRequest& request) { return approve(request, cancel); },
      [this](const chat::AgentResult& result) { this->result(result); },
  };
}

void AgentDesk::event(const Json& json) {
  if (context_.options.json) context_.print(dump_json(json) + "\n");
  if (transcript_ == nullptr) return;
  std::fputs((dump_json(json) + "\n").c_str(), transcript_.get());
  std::fflush(transcript_.get());
}

bool AgentDesk::text(std::string_view delta, bool reasoning) {
  if (!context_.options.json) return printer_->show_part({reasoning, std::string(delta)});
  event(chat::text_event(delta, reasoning));
  return true;
}

bool AgentDesk::approve(const chat::AgentRequest& request, const CancelToken& cancel) {
  event(chat::request_event(request));
  const bool agreed =
      !request.needs_approval || std::ranges::find(always_, request.tool) != always_.end();
  // Whoever is asked has to see it, --quiet or not.
  const bool asking = !agreed && asks_;
  if (asking || !context_.options.quiet)
    std::fputs(
        fmt::format("[{}]\n{}", request.tool, with_margin(request.shown, terminal_size().columns))
            .c_str(),
        stderr);
  if (!asking) return agreed;
  // What has scrolled away must not be forgotten.
  const auto lines = static_cast<size_t>(std::ranges::count(request.shown, '\n'));
  const std::string question = fmt::format(
      "do this{}? [y]es, [n]o, [a]lways for {}: ",
      lines < kLinesWorthCounting ? "" : fmt::format(" ({} lines)", lines + 1), request.tool);
  for (;;) {
    const auto reply = ask(question, cancel);
    if (!reply || *reply == "n" || *reply == "no") return false;
    if (*reply == "a" || *reply == "always") always_.push_back(request.tool);
    if (*reply == "a" || *reply == "always" || *reply == "y" || *reply == "yes") return true;
  }
}

void AgentDesk::result(const chat::AgentResult& result) {
  event(chat::result_event(result));
  if (context_.options.json) return;
  context_.console->info(result.ok ? "  done: " + summary_of(result.text, kResultColumns)
                                   : "  not done: " + summary_of(result.text, kReasonColumns));
}

void AgentDesk::started(const Json& messages) {
  Json start = chat::agent_event("start");
  start["messages"] = messages;
  event(start);
}

void AgentDesk::done(const chat::AgentRun& run) {
  event(chat::done_event(run));
  if (context_.options.json) return;
  if (run.finish_reason == "steps")
    context_.console->warn("no further step is allowed; --max-steps allows more");
  for (const chat::ToolSource& source : run.sources)
    context_.print(chat::visible_text(fmt::format("[{}] {}\n", source.title, source.url)));
}

}  // namespace sluice::cli
