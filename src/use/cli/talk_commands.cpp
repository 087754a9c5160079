// The commands of `sluice chat`: what each does, and the list of them.
#include <algorithm>
#include <cctype>
#include <ctime>
#include <filesystem>

#include "base/machine.h"
#include "chat/visible_text.h"
#include "cli/interrupt.h"
#include "cli/talk.h"
#include "evaluate/throughput.h"

namespace sluice::cli {
namespace {

constexpr uint64_t kConversationBytesMax = 64ull << 20;
constexpr size_t kOpeningColumns = 48;
// /compact: what is asked for, and how long it may get.
constexpr size_t kSummaryTokensMax = 400;
constexpr const char* kSummaryRequest =
    "Summarize our conversation so far, so that we can go on from your summary alone. Keep every "
    "name, number, fact and decision that still matters. At most 200 words; nothing but the "
    "summary.";
// /bench.
constexpr size_t kBenchPrompt = 128, kBenchTokens = 32;

// "2 h ago".
std::string age_text(int64_t changed_s) {
  const int64_t seconds =
      std::max<int64_t>(0, static_cast<int64_t>(std::time(nullptr)) - changed_s);
  if (seconds < 60) return "now";
  if (seconds < 3600) return fmt::format("{} min ago", seconds / 60);
  if (seconds < 86400) return fmt::format("{} h ago", seconds / 3600);
  return fmt::format("{} days ago", seconds / 86400);
}

std::string one_line(std::string_view text) {
  std::string line = chat::visible_text(text);
  std::ranges::replace(line, '\n', ' ');
  std::ranges::replace(line, '\t', ' ');
  return std::string(chat::fitting(line, kOpeningColumns));
}

// A file where there is a slash, a name in the store else.
bool is_path(const std::string& name) { return name.contains('/'); }

// Names are typed and shown: letters, digits and a few signs.
Status check_name(const std::string& name) {
  const bool good = !name.empty() && name.size() <= 100 && std::ranges::all_of(name, [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || (c & 0x80) != 0 || c == '-' ||
           c == '_' || c == '.' || c == ' ';
  });
  if (good) return {};
  return fail(ErrorCode::kInvalidArgument,
              "a name has at most 100 letters, digits, spaces and signs of - _ .");
}

}  // namespace

struct Talk::Command {
  const char* name;
  const char* usage;  // behind the name
  const char* help;
  Result<bool> (Talk::*run)(const std::string& rest);
};

const Talk::Command Talk::kCommands[] = {
    {"help", "", "this list", &Talk::on_help},
    {"search", " QUERY", "searches the web and answers from what was found", &Talk::on_search},
    {"agent", " REQUEST", "a request done with tools; asks before each use", &Talk::on_agent},
    {"stats", "", "speed, context and memory", &Talk::on_stats},
    {"model", " [MODEL]", "goes on with another model; alone, says which it is", &Talk::on_model},
    {"system", " [TEXT]", "another system prompt (off: none); begins anew", &Talk::on_system},
    {"clear", "", "begins anew", &Talk::on_clear},
    {"compact", "", "replaces all but the last exchange by a summary", &Talk::on_compact},
    {"save", " NAME|./FILE", "keeps the conversation, with all the model has read", &Talk::on_save},
    {"load", " [NAME|./FILE]", "goes on with one that was kept; alone, lists them", &Talk::on_load},
    {"branch", " [NAME]", "from here on another branch; alone, lists them", &Talk::on_branch},
    {"restore", " [NAME]", "goes back to a branch, or to where this one began", &Talk::on_restore},
    {"retry", "", "another answer in place of the last", &Talk::on_retry},
    {"good", " [NOTE]", "notes that the last answer was good", &Talk::on_good},
    {"bad", " [NOTE]", "notes that it was bad", &Talk::on_bad},
    {"raw", "", "Markdown as it was written, or drawn again", &Talk::on_raw},
    {"bench", "", "measures prefill and decode for a moment", &Talk::on_bench},
    {"quit", "", "ends (so does Ctrl-D)", &Talk::on_quit},
};

std::vector<std::string> command_names() {
  std::vector<std::string> names;
  for (const Talk::Command& command : Talk::kCommands)
    names.push_back(std::string("/") + command.name);
  return names;
}

bool is_command(const std::string& line) {
  if (!line.starts_with('/')) return false;
  const std::string_view word = std::string_view(line).substr(1, line.find_first_of(" \n\t") - 1);
  return !word.empty() &&
         std::ranges::all_of(word, [](unsigned char c) { return std::isalpha(c); });
}

Result<bool> Talk::command(const std::string& line) {
  const size_t space = std::min(line.find_first_of(" \n\t"), line.size());
  std::string name = line.substr(1, space - 1);
  std::string rest = line.substr(space);
  const size_t first = std::min(rest.find_first_not_of(" \n\t"), rest.size());
  rest = rest.substr(first, rest.find_last_not_of(" \n\t") + 1 - first);
  if (name == "exit") name = "quit";
  for (const Command& entry : kCommands)
    if (name == entry.name) return (this->*entry.run)(rest);
  context_.print(fmt::format("there is no command /{}\n", name));
  return on_help("");
}

Result<bool> Talk::on_help(const std::string&) {
  Table table({Align::kLeft, Align::kLeft});
  for (const Command& entry : kCommands)
    table.add({fmt::format("/{}{}", entry.name, entry.usage), entry.help});
  context_.print(table.text("") +
                 "Ctrl-C ends an answer. A line that ends with \\ goes on, and so it does with "
                 "Alt-Enter; \"\"\" opens and closes a longer text.\n");
  return true;
}

Result<bool> Talk::on_stats(const std::string&) {
  std::string text = last_ ? generation_text(*last_, talking_->engine()) : "";
  text +=
      fmt::format("model: {}\ncontext: {} of {} tokens, {} messages\n", talking_->name,
                  talking_->session->size(), talking_->session->context(), kept_.messages().size());
  context_.print(text);
  return true;
}

// The new model needs the memory of the old, which comes back where the new one cannot be had.
Result<bool> Talk::on_model(const std::string& rest) {
  if (rest.empty()) {
    context_.print(talking_->name + "\n");
    return true;
  }
  const std::string before = talking_->name;
  SLUICE_TRY(finish());
  talking_.reset();
  return_freed_memory();
  auto opened = open_talking_model(context_, arguments_, rest);
  if (!opened) {
    context_.console->error(opened.error().message);
    auto again = open_talking_model(context_, arguments_, before);
    if (!again)
      return fail(ErrorCode::kUnsupported, "{} cannot be opened again: {}", before,
                  again.error().message);
    opened = std::move(again);
  }
  talking_ = std::move(*opened);
  last_.reset();
  context_.print(fmt::format("the conversation goes on with {}\n", talking_->name));
  return true;
}

Result<bool> Talk::on_system(const std::string& rest) {
  if (rest.empty()) {
    context_.print(kept_.system().empty() ? "no system prompt\n"
                                          : chat::visible_text(kept_.system()) + "\n");
    return true;
  }
  kept_.begin(rest == "off" ? "" : rest);
  last_.reset();
  context_.print("a new conversation begins\n");
  return true;
}

Result<bool> Talk::on_clear(const std::string&) {
  kept_.begin(kept_.system());
  last_.reset();
  context_.print("a new conversation begins\n");
  return true;
}

// All but the last exchange and the wish for a summary, as far as the context has room for them.
Result<std::vector<chat::Message>> Talk::to_summarize() {
  std::vector<chat::Message> older = kept_.all();
  const size_t system = kept_.system().empty() ? 0 : 1;
  const size_t last = last_exchange(older);
  if (last <= system) return fail(ErrorCode::kInvalidArgument, "there is nothing yet to summarize");
  older.resize(last);
  older.push_back({.role = chat::Role::kUser, .content = kSummaryRequest});
  size_t dropped = 0;
  for (;;) {
    std::string rendered;
    SLUICE_ASSIGN(const std::vector<uint32_t> tokens, tokens_of(older, &rendered));
    const bool fits = tokens.size() + kSummaryTokensMax <= talking_->session->context();
    // One exchange at the least, and the wish.
    const auto asked = [](const chat::Message& m) { return m.role == chat::Role::kUser; };
    const auto first = older.begin() + static_cast<ptrdiff_t>(system);
    const auto second = std::find_if(first + 1, older.end(), asked);
    if (fits || older.end() - second < 2) break;
    dropped += static_cast<size_t>(second - first);
    older.erase(first, second);
  }
  if (dropped > 0)
    context_.console->warn(
        fmt::format("the context has no room for the {} oldest messages, which are left out of "
                    "the summary",
                    dropped));
  return older;
}

Result<bool> Talk::on_compact(const std::string&) {
  SLUICE_ASSIGN(const std::vector<chat::Message> older, to_summarize());
  const size_t used = talking_->session->size();
  SLUICE_ASSIGN(Written written, write(older, *talking_->sampler, kSummaryTokensMax));
  if (written.generation.finish == chat::Finish::kCancelled || written.answer.empty())
    return fail(ErrorCode::kInvalidArgument, "there is no summary; nothing has changed");
  std::vector<chat::Message> messages = {
      older.back(), {.role = chat::Role::kAssistant, .content = std::move(written.answer)}};
  const std::vector<chat::Message> all = kept_.all();
  messages.insert(messages.end(), all.begin() + static_cast<ptrdiff_t>(last_exchange(all)),
                  all.end());
  SLUICE_ASSIGN(const std::string kept, kept_.replace(std::move(messages), talking_->name));
  std::string rendered;
  SLUICE_ASSIGN(const std::vector<uint32_t> tokens, tokens_of(kept_.all(), &rendered));
  last_ = std::move(written.generation);
  context_.print(
      fmt::format("context: {} tokens instead of {}{}\n", tokens.size(), used, kept_note(kept)));
  return true;
}

std::string Talk::kept_note(const std::string& branch) const {
  return branch.empty() ? "" : fmt::format("; what was there is branch {}", branch);
}

Status Talk::save_file(const std::string& path) {
  SLUICE_TRY(talking_->session->save(path));
  return io::write_file_atomically(*context_.storage, path + ".json",
                                   dump_json({{"version", 1},
                                              {"system", kept_.system()},
                                              {"messages", chat::messages_json(kept_.all())}},
                                             1) +
                                       "\n");
}

Status Talk::load_file(const std::string& path) {
  const std::string label = path + ".json";
  SLUICE_ASSIGN(const auto source, context_.storage->open_source(label));
  SLUICE_ASSIGN(const std::string text, io::read_text(*source, kConversationBytesMax));
  SLUICE_ASSIGN(const Json json, parse_json(text, label));
  SLUICE_TRY(json_int(json, "version", 1, 1, label));
  SLUICE_ASSIGN(const std::string system, json_string(json, "system", label));
  SLUICE_ASSIGN(const Json* list, json_array(json, "messages", label));
  SLUICE_ASSIGN(std::vector<chat::Message> messages,
                chat::parse_messages(*list, label + ": messages"));
  if (!messages.empty() && messages[0].role == chat::Role::kSystem)
    messages.erase(messages.begin());
  SLUICE_TRY(talking_->session->load(path));
  kept_.begin(system, std::move(messages));
  last_.reset();
  return {};
}

Result<bool> Talk::on_save(const std::string& rest) {
  if (is_path(rest)) {
    SLUICE_TRY(save_file(rest));
    return true;
  }
  SLUICE_TRY(check_name(rest));
  SLUICE_TRY(kept_.save(rest, talking_->name));
  const std::string path = kept_.session_path();
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  std::error_code ignored;
  if (std::filesystem::create_directories(folder, ignored))  // what was said is its owner's alone
    std::filesystem::permissions(folder, std::filesystem::perms::owner_all, ignored);
  // What was said is safe by now; these only save reading it again.
  if (const Status saved = talking_->session->save(path); !saved)
    context_.console->warn(fmt::format("{}; when it is loaded, the conversation will be read anew",
                                       saved.error().message));
  context_.print(fmt::format("kept as {}\n", rest));
  return true;
}

Result<bool> Talk::list_conversations() {
  SLUICE_ASSIGN(const auto list, kept_.conversations());
  if (list.empty()) context_.print("no conversation has been kept yet\n");
  Table table({Align::kRight, Align::kLeft, Align::kRight, Align::kLeft, Align::kLeft});
  for (const chat::ConversationSummary& entry : list)
    table.add({fmt::format("{}", entry.id), entry.name, fmt::format("{}", entry.messages),
               age_text(entry.changed_s), one_line(entry.opening)});
  context_.print(table.text(""));
  return true;
}

Result<bool> Talk::on_load(const std::string& rest) {
  if (rest.empty()) return list_conversations();
  SLUICE_TRY(is_path(rest) ? load_file(rest) : load_conversation(rest));
  return true;
}

Result<bool> Talk::list_branches() {
  SLUICE_ASSIGN(const auto list, kept_.branches(talking_->name));
  Table table({Align::kLeft, Align::kLeft, Align::kRight});
  for (const chat::BranchSummary& branch : list)
    table.add({branch.name == kept_.branch() ? "*" : "", branch.name,
               fmt::format("{} messages", branch.messages)});
  context_.print(table.text(""));
  return true;
}

Result<bool> Talk::on_branch(const std::string& rest) {
  if (rest.empty()) return list_branches();
  SLUICE_TRY(check_name(rest));
  const std::string before = kept_.branch();
  SLUICE_TRY(kept_.branch_off(rest, talking_->name));
  context_.print(
      fmt::format("from here on this is branch {}; /restore {} goes back\n", rest, before));
  return true;
}

Result<bool> Talk::on_restore(const std::string& rest) {
  if (rest.empty()) return list_branches();
  SLUICE_ASSIGN(const std::string kept, kept_.restore(rest, talking_->name));
  last_.reset();
  context_.print(fmt::format("back on branch {}, {} messages{}\n", rest, kept_.messages().size(),
                             kept_note(kept)));
  show_last_exchange();
  return true;
}

Result<bool> Talk::on_retry(const std::string&) {
  std::vector<chat::Message> messages = kept_.all();
  size_t keep_count = kept_.messages().size();
  if (keep_count == 0 || messages.back().role != chat::Role::kAssistant)
    return fail(ErrorCode::kInvalidArgument, "there is no answer yet to try again");
  messages.pop_back();
  --keep_count;
  if (talking_->sampler->options().temperature == 0)
    context_.console->warn("at temperature 0 another seed changes nothing; --temp 0.7 would");
  SLUICE_ASSIGN(
      runtime::Sampler sampler,
      sampler_with_seed(context_, *talking_, talking_->sampler->options().seed + ++retries_));
  SLUICE_ASSIGN(Written written, write(messages, sampler, 0));
  SLUICE_TRY(keep_answer(keep_count, {}, std::move(written)));
  return true;
}

Result<bool> Talk::on_good(const std::string& rest) {
  SLUICE_TRY(kept_.rate(1, rest, talking_->name));
  context_.print("noted: a good answer\n");
  return true;
}

Result<bool> Talk::on_bad(const std::string& rest) {
  SLUICE_TRY(kept_.rate(-1, rest, talking_->name));
  context_.print("noted: a bad answer; /retry asks for another\n");
  return true;
}

Result<bool> Talk::on_raw(const std::string&) {
  raw_ = !raw_;
  context_.print(raw_ ? "answers are shown as they are written\n" : "Markdown is drawn\n");
  return true;
}

Result<bool> Talk::on_bench(const std::string&) {
  const size_t room = talking_->session->context();
  const size_t prompt = std::min(kBenchPrompt, room / 2);
  const evaluate::ThroughputOptions options{.prompts = {prompt},
                                            .depths = {0},
                                            .batches = {1},
                                            .decode_tokens = std::min(kBenchTokens, room / 4),
                                            .repetitions = 3};
  // Its keys and values take the place of the conversation's, which is read again afterwards.
  talking_->session->rewind(0);
  context_.console->count_in("tokens");
  context_.console->begin("bench", 0);
  CancelToken cancel;
  const InterruptScope scope(cancel, SecondInterrupt::kDoesNothing);
  const auto results =
      evaluate::measure_throughput(talking_->engine(), options, *context_.console, &cancel);
  context_.console->end();
  context_.console->count_in("");
  if (!results) return std::unexpected(results.error());
  for (const evaluate::Throughput& result : *results)
    context_.print(
        fmt::format("{}: {} tokens, {:.1f} tokens/s\n",
                    result.kind == evaluate::Throughput::Kind::kPrefill ? "prefill" : "decode",
                    result.tokens, result.tokens_per_s));
  return true;
}

Result<bool> Talk::on_quit(const std::string&) { return false; }

}  // namespace sluice::cli
