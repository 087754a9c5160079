#include "cli/talk.h"

#include <algorithm>

#include "base/clock.h"
#include "base/machine.h"
#include "base/units.h"
#include "chat/visible_text.h"
#include "cli/interrupt.h"
#include "cli/terminal.h"

namespace sluice::cli {
namespace {

// The busy line's figures are worth no more work than this.
constexpr double kFiguresEvery_s = 0.2;

}  // namespace

Talk::Talk(Context& context, const TalkArguments& arguments, std::unique_ptr<TalkingModel> talking,
           KeptTalk kept, std::map<std::string, std::string> variables, bool terminal)
    : context_(context),
      arguments_(arguments),
      talking_(std::move(talking)),
      kept_(std::move(kept)),
      terminal_(terminal) {
  input_.variables = std::move(variables);
}

std::string Talk::prompt() const {
  return kept_.branch() == chat::kFirstBranch ? "> " : kept_.branch() + "> ";
}

Result<std::vector<uint32_t>> Talk::tokens_of(std::span<const chat::Message> messages,
                                              std::string* text) const {
  return chat::render_conversation(*talking_->model, messages, input_, text);
}

std::string Talk::figures(size_t prompt_tokens, size_t tokens, double seconds) {
  const runtime::Session& session = *talking_->session;
  std::string text = tokens == 0
                         ? fmt::format("reading {} tokens", prompt_tokens)
                         : fmt::format("{:.1f} tokens/s",
                                       seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0);
  text += fmt::format("  context {} of {}  memory {}", session.size(), session.context(),
                      bytes_text(resident_bytes()));
  const uint64_t read = talking_->engine().statistics().bytes_read;
  return read == 0 ? text : text + fmt::format("  from disk {}", bytes_text(read));
}

Result<Talk::Written> Talk::write(std::span<const chat::Message> messages,
                                  runtime::Sampler& sampler, size_t tokens_max) {
  std::string rendered;
  SLUICE_ASSIGN(const std::vector<uint32_t> tokens, tokens_of(messages, &rendered));
  SLUICE_TRY(chat::check_prompt(tokens, talking_->session->context()));
  chat::GenerateOptions options =
      generate_options(arguments_.generation, talking_->drafting.draft.get());
  if (tokens_max != 0) options.tokens_max = tokens_max;
  std::optional<MarkdownOptions> markdown;
  if (terminal_ && !raw_) markdown.emplace(shows_styles(), terminal_size().columns);
  CancelToken cancel;
  const InterruptScope scope(cancel, SecondInterrupt::kDoesNothing);
  talking_->engine().adapt_memory();
  Written written;
  std::optional<BusyLine> busy(std::in_place, terminal_ && can_draw());
  busy->say(figures(tokens.size(), 0, 0));
  AnswerPrinter printer(rendered, reasoning_of(arguments_.generation), markdown,
                        [&](std::string_view text) { return busy->print(text); });
  std::optional<Stopwatch> since_first;
  double drawn_s = -1;
  const size_t before = tokens.size();
  auto generation = chat::generate(
      *talking_->model, *talking_->session, tokens, choose_with(sampler), options,
      [&](std::string_view piece) {
        if (!since_first) since_first.emplace();
        const double seconds = since_first->seconds();
        if (busy->shown() && seconds - drawn_s >= kFiguresEvery_s) {
          drawn_s = seconds;
          const size_t there = talking_->session->size();
          busy->say(figures(before, there > before ? there - before : 1, seconds));
        }
        return printer.show(piece);
      },
      &cancel);
  printer.finish();
  if (!printer.ends_line()) busy->print("\n");
  busy.reset();
  if (!generation) return std::unexpected(generation.error());
  written.answer = printer.answer();
  written.thoughts = printer.thoughts();
  written.generation = std::move(*generation);
  return written;
}

Status Talk::keep_answer(size_t keep_count, std::vector<chat::Message> messages, Written written) {
  if (written.generation.finish == chat::Finish::kCancelled && written.answer.empty() &&
      written.thoughts.empty()) {
    context_.console->info("nothing was written; the conversation is as it was");
    return {};
  }
  messages.push_back({.role = chat::Role::kAssistant,
                      .content = std::move(written.answer),
                      .reasoning = std::move(written.thoughts)});
  kept_.put(keep_count, std::move(messages), talking_->name);
  last_ = std::move(written.generation);
  if (last_->finish == chat::Finish::kContext)
    context_.console->warn(
        "the context is full; /compact shortens the conversation, /clear begins anew, "
        "--context-shift goes on");
  return {};
}

Status Talk::answer(const std::string& text) {
  std::vector<chat::Message> messages = kept_.all();
  const chat::Message question{.role = chat::Role::kUser, .content = text};
  messages.push_back(question);
  SLUICE_ASSIGN(Written written, write(messages, *talking_->sampler, 0));
  return keep_answer(kept_.messages().size(), {question}, std::move(written));
}

// What was said, so that one sees where a conversation stands.
void Talk::show_messages(size_t first) const {
  if (!terminal_) return;
  const bool styles = shows_styles();
  for (size_t i = first; i < kept_.messages().size(); ++i) {
    const chat::Message& message = kept_.messages()[i].message;
    std::string text = chat::visible_text(message.content);
    if (message.role == chat::Role::kUser) {
      context_.print(
          fmt::format("{}> {}{}\n", styles ? "\x1b[1m" : "", text, styles ? "\x1b[22m" : ""));
      continue;
    }
    Markdown markdown({.styles = styles, .columns = terminal_size().columns});
    if (!raw_) {
      text = markdown.feed(text);
      text += markdown.finish();
    }
    context_.print(text + "\n");
  }
}

// Keys and values that lie on disk save reading the conversation again; without them it is read.
Status Talk::reuse_session(const std::string& path) {
  if (path.empty() || !context_.storage->exists(path)) return {};
  if (const Status loaded = talking_->session->load(path); !loaded)
    context_.console->info(
        fmt::format("what was said will be read anew ({})", loaded.error().message));
  return {};
}

Status Talk::load_conversation(const std::string& name) {
  SLUICE_TRY(kept_.load(name));
  SLUICE_TRY(reuse_session(kept_.session_path()));
  last_.reset();
  const size_t count = kept_.messages().size();
  if (count > 2 && terminal_) context_.print(fmt::format("({} earlier messages)\n", count - 2));
  show_messages(count > 2 ? count - 2 : 0);
  return {};
}

Status Talk::finish() { return finish_running(context_, talking_->running); }

}  // namespace sluice::cli
