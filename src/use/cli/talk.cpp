#include "cli/talk.h"

#include <algorithm>

#include "chat/agent_turn.h"
#include "chat/visible_text.h"
#include "cli/busy_generation.h"
#include "cli/interrupt.h"
#include "cli/terminal.h"

namespace sluice::cli {
Talk::Talk(Context& context, const TalkArguments& arguments, std::unique_ptr<TalkingModel> talking,
           KeptTalk kept, std::unique_ptr<AgentDesk> desk,
           std::map<std::string, std::string> variables, bool terminal)
    : context_(context),
      arguments_(arguments),
      talking_(std::move(talking)),
      kept_(std::move(kept)),
      desk_(std::move(desk)),
      terminal_(terminal) {
  input_.variables = std::move(variables);
}

std::string Talk::prompt() const {
  const std::string branch = kept_.branch() == chat::kFirstBranch ? "" : kept_.branch();
  if (!arguments_.requests) return branch + "> ";
  return branch.empty() ? "agent> " : branch + " agent> ";
}

Result<std::vector<uint32_t>> Talk::tokens_of(std::span<const chat::Message> messages,
                                              std::string* text) const {
  const auto& source = talking_->model->chat_template->source(true);
  if (chat::ToolSyntax::of_template(source).in_template())
    return chat::render_conversation(*talking_->model, messages, input_, text);
  return chat::render_conversation(
      *talking_->model, chat::messages_without_tools({messages.begin(), messages.end()}, {}),
      input_, text);
}

bool Talk::draws_busy() const { return terminal_ && can_draw(); }

Result<Talk::Written> Talk::write(std::span<const chat::Message> messages,
                                  runtime::Sampler& sampler, size_t tokens_max) {
  std::string rendered;
  SLUICE_ASSIGN(const std::vector<uint32_t> tokens, tokens_of(messages, &rendered));
  SLUICE_TRY(chat::check_prompt(tokens, talking_->session->context()));
  chat::GenerateOptions options =
      generate_options(arguments_.generation, talking_->drafting.draft.get());
  if (tokens_max != 0) options.tokens_max = tokens_max;
  std::optional<MarkdownOptions> markdown;
  if (draws_markdown()) markdown.emplace(shows_styles(), terminal_size().columns);
  CancelToken cancel;
  const InterruptScope scope(cancel, SecondInterrupt::kDoesNothing);
  Written written;
  std::optional<BusyLine> busy(std::in_place, draws_busy());
  AnswerPrinter printer(rendered, reasoning_of(arguments_.generation), markdown,
                        [&](std::string_view text) { return busy->print(text); });
  auto generation = generate_busy(
      *talking_, tokens, sampler, options, *busy,
      [&](std::string_view piece) { return printer.show(piece); }, cancel);
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

Status Talk::say(const std::string& text) {
  if (!arguments_.requests) return answer(text);
  SLUICE_TRY(do_request(text));
  return {};
}

size_t last_exchange(std::span<const chat::Message> messages) {
  for (size_t i = messages.size(); i > 0; --i)
    if (messages[i - 1].role == chat::Role::kUser) return i - 1;
  return 0;
}

void Talk::show_last_exchange() const {
  const std::vector<chat::Message> all = kept_.all();
  const size_t system = all.size() - kept_.messages().size();
  const size_t first = std::max(last_exchange(all), system) - system;
  if (first > 0 && terminal_) context_.print(fmt::format("({} earlier messages)\n", first));
  show_messages(first);
}

// What was said, so that one sees where a conversation stands.
void Talk::show_messages(size_t first) const {
  if (!terminal_) return;
  const bool styles = shows_styles();
  for (size_t i = first; i < kept_.messages().size(); ++i) {
    const chat::Message& message = kept_.messages()[i].message;
    std::string text = chat::visible_text(message.content);
    for (const chat::MessageCall& call : message.tool_calls)
      context_.print(with_margin(chat::visible_text(call.name + " " + call.arguments),
                                 terminal_size().columns));
    if (message.role == chat::Role::kTool || (text.empty() && !message.tool_calls.empty()))
      continue;
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
  show_last_exchange();
  return {};
}

Status Talk::finish() { return finish_running(context_, talking_->running); }

}  // namespace sluice::cli
