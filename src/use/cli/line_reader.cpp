#include "cli/line_reader.h"

#include <fmt/format.h>
#include <histedit.h>
#include <sys/stat.h>

#include <algorithm>
#include <clocale>
#include <cstdio>
#include <filesystem>
#include <iostream>

namespace sluice::cli {
namespace {

constexpr int kHistoryLines = 1000;
constexpr size_t kPasteBytesMax = 8 << 20;
constexpr const char* kQuotes = "\"\"\"";
// What terminals put around a paste where it is asked for (xterm's bracketed paste mode).
constexpr std::string_view kPasteOn = "\x1b[?2004h", kPasteOff = "\x1b[?2004l";
constexpr std::string_view kPasteEnd = "\x1b[201~";

void send(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

// Non-ASCII letters need a locale that has them; without one of the user's, the plain UTF-8 one.
void use_utf8() {
  if (std::setlocale(LC_CTYPE, "") != nullptr && MB_CUR_MAX > 1) return;
  if (std::setlocale(LC_CTYPE, "C.UTF-8") == nullptr) std::setlocale(LC_CTYPE, "UTF-8");
}

// As UTF-8.
void append(std::string& text, char32_t code) {
  const auto tail = [&](int shift) { text += static_cast<char>(0x80 | (code >> shift & 0x3f)); };
  if (code < 0x80) {
    text += static_cast<char>(code);
  } else if (code < 0x800) {
    text += static_cast<char>(0xc0 | code >> 6);
    tail(0);
  } else if (code < 0x10000) {
    text += static_cast<char>(0xe0 | code >> 12);
    tail(6);
    tail(0);
  } else {
    text += static_cast<char>(0xf0 | (code >> 18 & 7));
    tail(12);
    tail(6);
    tail(0);
  }
}

// With line ends of one kind, and nothing that a terminal obeys.
std::string cleaned(std::string_view paste) {
  std::string text;
  for (size_t i = 0; i < paste.size(); ++i) {
    if (paste[i] == '\r') {
      text += '\n';
      if (i + 1 < paste.size() && paste[i + 1] == '\n') ++i;
    } else if (static_cast<unsigned char>(paste[i]) >= 0x20 || paste[i] == '\n' ||
               paste[i] == '\t') {
      text += paste[i];
    }
  }
  return text;
}

}  // namespace

// libedit hands its functions the EditLine alone, whose client data is this.
class LineReader::Editor {
 public:
  Editor(std::string history_path, std::vector<std::string> commands);
  ~Editor();
  std::optional<std::string> read(const std::string& prompt);

 private:
  static Editor& of(EditLine* line) {
    void* self = nullptr;
    el_get(line, EL_CLIENTDATA, &self);
    return *static_cast<Editor*>(self);
  }
  static char* prompt_of(EditLine* line) { return of(line).prompt_.data(); }
  static unsigned char on_paste(EditLine* line, int) { return of(line).paste(); }
  static unsigned char on_interrupt(EditLine* line, int) { return of(line).interrupt(); }
  static unsigned char on_new_line(EditLine* line, int) {
    return el_insertstr(line, "\n") == 0 ? CC_REFRESH : CC_ERROR;
  }
  static unsigned char on_complete(EditLine* line, int) { return of(line).complete(); }

  void bind(const char* name, const char* key, unsigned char (*function)(EditLine*, int));
  unsigned char paste();
  unsigned char interrupt();
  unsigned char complete();
  std::string expanded(std::string text) const;
  void remember(const std::string& text);

  const std::string history_path_;
  const std::vector<std::string> commands_;
  std::string prompt_;
  EditLine* line_ = nullptr;
  History* history_ = nullptr;
  HistEvent event_{};
  bool interrupted_ = false;
  struct Paste {
    std::string shown, text;
  };
  std::vector<Paste> pastes_;  // of the line that is being read
};

LineReader::Editor::Editor(std::string history_path, std::vector<std::string> commands)
    : history_path_(std::move(history_path)), commands_(std::move(commands)) {
  use_utf8();
  line_ = el_init("sluice", stdin, stdout, stderr);
  history_ = history_init();
  history(history_, &event_, H_SETSIZE, kHistoryLines);
  history(history_, &event_, H_SETUNIQUE, 1);
  if (!history_path_.empty()) {
    std::error_code ignored;
    std::filesystem::create_directories(std::filesystem::path(history_path_).parent_path(),
                                        ignored);
    history(history_, &event_, H_LOAD, history_path_.c_str());
  }
  el_set(line_, EL_CLIENTDATA, this);
  el_set(line_, EL_PROMPT, prompt_of);
  el_set(line_, EL_EDITOR, "emacs");
  el_set(line_, EL_HIST, history, history_);
  el_set(line_, EL_SIGNAL, 0);
  // Ctrl-C is a key while a line is edited, so that it can neither end the program nor leave the
  // terminal in this state.
  el_set(line_, EL_SETTY, "-d", "-isig", nullptr);
  bind("sluice-paste", "\\e[200~", on_paste);
  bind("sluice-interrupt", "^C", on_interrupt);
  bind("sluice-new-line", "\\e^M", on_new_line);
  el_set(line_, EL_BIND, "\\e^J", "sluice-new-line", nullptr);  // where Enter has become one
  bind("sluice-complete", "^I", on_complete);
  el_set(line_, EL_BIND, "^R", "em-inc-search-prev", nullptr);
  el_set(line_, EL_BIND, "\\e[3~", "ed-delete-next-char", nullptr);
  el_set(line_, EL_BIND, "\\e[1;5C", "em-next-word", nullptr);
  el_set(line_, EL_BIND, "\\e[1;5D", "ed-prev-word", nullptr);
}

LineReader::Editor::~Editor() {
  history_end(history_);
  el_end(line_);
}

void LineReader::Editor::bind(const char* name, const char* key,
                              unsigned char (*function)(EditLine*, int)) {
  el_set(line_, EL_ADDFN, name, name, function);
  el_set(line_, EL_BIND, key, name, nullptr);
}

unsigned char LineReader::Editor::paste() {
  std::string raw;
  wchar_t c = 0;
  while (!raw.ends_with(kPasteEnd)) {
    if (el_wgetc(line_, &c) != 1) return CC_EOF;
    // Of too long a paste its end alone still matters.
    if (raw.size() >= kPasteBytesMax) raw.erase(kPasteBytesMax - kPasteEnd.size(), 1);
    append(raw, static_cast<char32_t>(c));
  }
  std::string text = cleaned(std::string_view(raw).substr(0, raw.size() - kPasteEnd.size()));
  while (text.ends_with('\n')) text.pop_back();
  const auto line_ends = std::ranges::count(text, '\n');
  if (line_ends > 0) {
    std::string shown = fmt::format("[{} lines]", line_ends + 1);
    for (size_t i = 2; std::ranges::find(pastes_, shown, &Paste::shown) != pastes_.end(); ++i)
      shown = fmt::format("[{} lines #{}]", line_ends + 1, i);
    pastes_.push_back({shown, text});
    text = shown;
  }
  return el_insertstr(line_, text.c_str()) == 0 ? CC_REFRESH : CC_ERROR;
}

unsigned char LineReader::Editor::interrupt() {
  interrupted_ = true;
  return CC_NEWLINE;
}

unsigned char LineReader::Editor::complete() {
  const LineInfo* info = el_line(line_);
  const std::string_view typed(info->buffer, static_cast<size_t>(info->cursor - info->buffer));
  if (!typed.starts_with('/') || typed.contains(' ')) return CC_ERROR;
  std::string common;
  bool found = false;
  for (const std::string& command : commands_) {
    if (!command.starts_with(typed)) continue;
    if (!found)
      common = command + " ";
    else
      common.resize(
          static_cast<size_t>(std::ranges::mismatch(common, command).in1 - common.begin()));
    found = true;
  }
  if (common.size() <= typed.size()) return CC_ERROR;
  return el_insertstr(line_, common.c_str() + typed.size()) == 0 ? CC_REFRESH : CC_ERROR;
}

std::string LineReader::Editor::expanded(std::string text) const {
  for (const Paste& paste : pastes_)
    if (const size_t place = text.find(paste.shown); place != std::string::npos)
      text.replace(place, paste.shown.size(), paste.text);
  return text;
}

// The history's file is read by its owner alone: it is what was said.
void LineReader::Editor::remember(const std::string& text) {
  if (text.find_first_not_of(" \t\n") == std::string::npos) return;
  history(history_, &event_, H_ENTER, text.c_str());
  if (history_path_.empty()) return;
  const mode_t before = umask(0077);
  history(history_, &event_, H_SAVE, history_path_.c_str());
  umask(before);
}

std::optional<std::string> LineReader::Editor::read(const std::string& prompt) {
  for (;;) {
    prompt_ = prompt;
    interrupted_ = false;
    pastes_.clear();
    send(kPasteOn);
    int length = 0;
    const char* typed = el_gets(line_, &length);
    send(kPasteOff);
    if (interrupted_) {
      send("^C\n");
      continue;
    }
    if (typed == nullptr || length <= 0) {
      send("\n");
      return std::nullopt;
    }
    std::string line(typed, static_cast<size_t>(length));
    while (line.ends_with('\n')) line.pop_back();
    line = expanded(std::move(line));
    remember(line);
    return line;
  }
}

LineReader::LineReader(bool terminal, std::string history_path, std::vector<std::string> commands) {
  if (terminal) editor_ = std::make_unique<Editor>(std::move(history_path), std::move(commands));
}

LineReader::~LineReader() = default;

std::optional<std::string> LineReader::read(const std::string& prompt) {
  if (editor_ != nullptr) return editor_->read(prompt);
  std::string line;
  if (!std::getline(std::cin, line)) return std::nullopt;
  return line;
}

std::optional<std::string> LineReader::read_message(const std::string& prompt) {
  std::optional<std::string> line = read(prompt);
  if (!line) return line;
  const std::string more(prompt.size(), '.');
  if (*line == kQuotes) {
    std::string text;
    while ((line = read(more)) && *line != kQuotes) text += *line + "\n";
    return text;
  }
  std::string text;
  while (line && line->ends_with('\\')) {
    text += line->substr(0, line->size() - 1) + "\n";
    line = read(more);
  }
  return text + line.value_or("");
}

}  // namespace sluice::cli
