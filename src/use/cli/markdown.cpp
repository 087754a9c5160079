#include "cli/markdown.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <utility>

#include "chat/visible_text.h"

namespace sluice::cli {
namespace {

// Markers that are further apart than this are none: an answer must not stop to appear.
constexpr size_t kSpanBytesMax = 600;
constexpr size_t kLineBytesMax = 4000;
constexpr size_t kTableRowsMax = 500;
constexpr size_t kDepthMax = 4;
constexpr std::string_view kMarkers = "`*_~[\\";

bool is_alnum(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || (c & 0x80) != 0;
}
bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n'; }

size_t run_length(std::string_view text, char c) {
  return std::min(text.find_first_not_of(c), text.size());
}

// Of what begins with a character that is no marker here, how much is text: its whole run, but one
// backslash alone, since the last of several may still mark.
size_t plain_length(std::string_view text) {
  return text[0] == '\\' ? 1 : run_length(text, text[0]);
}

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// "| a | b |": its cells.
std::vector<std::string> cells_of(std::string_view row) {
  row = trimmed(row);
  row.remove_prefix(row.starts_with('|') ? 1 : 0);
  row.remove_suffix(row.ends_with('|') && !row.ends_with("\\|") ? 1 : 0);
  std::vector<std::string> cells;
  std::string cell;
  for (size_t i = 0; i < row.size(); ++i) {
    const bool escaped = row[i] == '\\' && i + 1 < row.size() && row[i + 1] == '|';
    if (row[i] == '|') {
      cells.emplace_back(trimmed(cell));
      cell.clear();
    } else {
      cell += row[i += escaped ? 1 : 0];
    }
  }
  cells.emplace_back(trimmed(cell));
  return cells;
}

// "| --- | :-: |".
bool is_separator(std::string_view row) {
  return row.find('-') != std::string_view::npos &&
         row.find_first_not_of("|-: \t") == std::string_view::npos;
}

std::string without_styles(std::string_view text) {
  std::string plain;
  while (!text.empty()) {
    const size_t escape = std::min(text.find('\x1b'), text.size());
    plain += text.substr(0, escape);
    text.remove_prefix(escape);
    text.remove_prefix(text.empty() ? 0 : std::min(text.find('m') + 1, text.size()));
  }
  return plain;
}

std::string repeated(std::string_view piece, size_t count) {
  std::string text;
  for (size_t i = 0; i < count; ++i) text += piece;
  return text;
}

}  // namespace

std::string Markdown::styled(std::string_view on, std::string_view off, std::string_view marker,
                             std::string_view text) const {
  if (options_.styles) return fmt::format("\x1b[{}m{}\x1b[{}m", on, text, off);
  return fmt::format("{}{}{}", marker, text, marker);
}

std::string Markdown::feed(std::string_view piece) {
  held_ += piece;
  while (!held_.empty() && step()) {
  }
  return std::exchange(out_, {});
}

std::string Markdown::finish() {
  ended_ = true;
  while (!held_.empty() && step()) {
  }
  print_table();
  return std::exchange(out_, {});
}

bool Markdown::step() {
  if (!fence_.empty()) return take_code_line();
  if (line_start_) return take_line_start();
  return take_inline();
}

// ---- lines ----

bool Markdown::closes_code(std::string_view line) const {
  line = trimmed(line);
  return line.size() >= fence_.size() && run_length(line, fence_[0]) == line.size();
}

bool Markdown::take_code_line() {
  const size_t end = held_.find('\n');
  if (end == std::string::npos && !ended_ && held_.size() < kLineBytesMax) return false;
  const std::string line = held_.substr(0, end);
  held_.erase(0, end == std::string::npos ? held_.size() : end + 1);
  if (closes_code(line)) {
    out_ += options_.styles ? "" : line + "\n";
    fence_.clear();
    highlighter_.reset();
    return true;
  }
  out_ += options_.styles ? "  " + highlighter_->line(line) : line;
  if (end != std::string::npos) out_ += '\n';
  return true;
}

void Markdown::open_code(std::string_view line) {
  const std::string_view text = trimmed(line);
  const size_t length = run_length(text, text[0]);
  fence_ = text.substr(0, length);
  const std::string_view language = trimmed(text.substr(length));
  highlighter_.emplace(language);
  if (!options_.styles)
    out_ += fmt::format("{}\n", line);
  else if (!language.empty())
    out_ += fmt::format("  \x1b[2m{}\x1b[22m\n", language);
}

void Markdown::print_heading(std::string_view line, size_t level) {
  const std::string_view text = trimmed(line.substr(level));
  if (!options_.styles)
    out_ += line;
  else
    out_ +=
        fmt::format("\x1b[1{}m{}\x1b[0m", level <= 2 ? ";4" : "", without_styles(spans(text, 0)));
}

void Markdown::print_table() {
  if (table_.empty()) return;
  const std::vector<std::string> rows = std::exchange(table_, {});
  std::vector<std::vector<std::string>> drawn;
  std::vector<size_t> widths;
  for (const std::string& row : rows) {
    auto& cells = drawn.emplace_back();
    if (is_separator(row)) continue;
    for (const std::string& cell : cells_of(row)) {
      cells.push_back(spans(cell, 0));
      widths.resize(std::max(widths.size(), cells.size()));
      size_t& width = widths[cells.size() - 1];
      width = std::max(width, chat::text_columns(without_styles(cells.back())));
    }
  }
  size_t total = 0;
  for (const size_t width : widths) total += width + 2;
  if (rows.size() < 2 || total > options_.columns + 2) {
    for (const std::string& row : rows) out_ += spans(row, 0) + "\n";
    if (!table_ends_line_) out_.pop_back();
    return;
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    std::string line;
    for (size_t c = 0; drawn[i].empty() && c < widths.size(); ++c)
      line += (c > 0 ? "  " : "") + repeated("─", widths[c]);
    for (size_t c = 0; c < drawn[i].size(); ++c) {
      const size_t width = chat::text_columns(without_styles(drawn[i][c]));
      const bool header = i == 0 && options_.styles;
      line += (c > 0 ? "  " : "") + (header ? "\x1b[1m" + drawn[i][c] + "\x1b[22m" : drawn[i][c]);
      if (c + 1 < drawn[i].size()) line += std::string(widths[c] - width, ' ');
    }
    out_ += line + "\n";
  }
  if (!table_ends_line_) out_.pop_back();
}

// Kinds that are told by their whole line: fences, headings, rows of tables, rules. Returns whether
// the line was one of them.
bool Markdown::take_whole_line() {
  const size_t end = held_.find('\n');
  const std::string line = held_.substr(0, end);
  const std::string_view text = trimmed(line);
  const bool fence = text.starts_with("```") || text.starts_with("~~~");
  const size_t level = run_length(text, '#');
  const bool heading = level >= 1 && level <= 6 && (text.size() == level || text[level] == ' ');
  const bool row = text.starts_with('|');
  const size_t dashes = text.empty() ? 0 : run_length(text, text[0]);
  const bool rule =
      dashes >= 3 && dashes == text.size() && std::string_view("-*_").contains(text[0]);
  if (!fence && !heading && !row && !rule) return false;
  held_.erase(0, end == std::string::npos ? held_.size() : end + 1);
  if (!row) print_table();
  if (row) {
    table_.push_back(line);
    table_ends_line_ = end != std::string::npos;
    if (table_.size() >= kTableRowsMax) print_table();
    return true;
  }
  if (fence) {
    open_code(line);
    return true;
  }
  if (heading)
    print_heading(text, level);
  else
    out_ += repeated("─", std::min<size_t>(options_.columns, 40));
  if (end != std::string::npos) out_ += '\n';
  return true;
}

// Bullets, numbers and quotes, whose text then comes as it arrives.
bool Markdown::take_marker() {
  const size_t indent = std::min(held_.find_first_not_of(" \t"), held_.size());
  const std::string_view text = std::string_view(held_).substr(indent);
  size_t length = 0;
  std::string shown;
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  if (text.size() >= 2 && std::string_view("-*+").contains(text[0]) && text[1] == ' ') {
    length = 2;
    shown = "• ";
  } else if (digits >= 1 && digits <= 9 && text.size() > digits + 1 && text[digits + 1] == ' ' &&
             (text[digits] == '.' || text[digits] == ')')) {
    length = digits + 2;
    shown = text.substr(0, length);
  } else if (text.starts_with('>')) {
    length = text.starts_with("> ") ? 2 : 1;
    shown = options_.styles ? "\x1b[2m│\x1b[22m " : "> ";
  }
  if (length == 0) return false;
  out_ += held_.substr(0, indent) + shown;
  held_.erase(0, indent + length);
  return true;
}

bool Markdown::take_line_start() {
  const size_t start = held_.find_first_not_of(" \t");
  const bool whole = ended_ || held_.find('\n') != std::string::npos;
  if (start == std::string::npos && !whole) return false;
  const std::string_view text =
      start == std::string::npos ? "" : std::string_view(held_).substr(start);
  // A few characters tell what a line is, and a whole line is needed where they do.
  const bool undecided =
      text.size() < 4 && text.find_first_not_of("`~#*-_+0123456789.)>") == std::string_view::npos;
  const bool by_line = text.starts_with('|') || text.starts_with('#') || text.starts_with("```") ||
                       text.starts_with("~~~") || text.starts_with("---") ||
                       text.starts_with("***") || text.starts_with("___");
  if (!whole && (undecided || by_line) && held_.size() < kLineBytesMax) return false;
  if (whole && take_whole_line()) return true;
  print_table();
  take_marker();
  line_start_ = false;
  before_ = ' ';
  return true;
}

// ---- text within a line ----

bool Markdown::take_inline() {
  const char first = held_[0];
  if (first == '\n') {
    out_ += '\n';
    held_.erase(0, 1);
    line_start_ = true;
    return true;
  }
  if (!kMarkers.contains(first)) {
    const size_t length = std::min(held_.find_first_of("`*_~[\\\n"), held_.size());
    out_ += held_.substr(0, length);
    before_ = held_[length - 1];
    held_.erase(0, length);
    return true;
  }
  const size_t end = std::min(held_.find('\n'), held_.size());
  const bool complete = ended_ || end < held_.size() || held_.size() > kSpanBytesMax;
  const std::string_view line = std::string_view(held_).substr(0, end);
  const std::optional<size_t> length = span(line, before_, complete, 0, out_);
  if (!length) return false;
  size_t taken = *length;
  if (taken == 0) {  // no marker
    taken = plain_length(line);
    out_ += line.substr(0, taken);
  }
  before_ = held_[taken - 1];
  held_.erase(0, taken);
  return true;
}

std::string Markdown::spans(std::string_view text, size_t depth) const {
  std::string out;
  char before = ' ';
  while (!text.empty()) {
    size_t length = std::min(text.find_first_of(kMarkers), text.size());
    if (length > 0) {
      out += text.substr(0, length);
    } else {
      length = span(text, before, true, depth, out).value_or(0);
      if (length == 0) {
        length = plain_length(text);
        out += text.substr(0, length);
      }
    }
    before = text[length - 1];
    text.remove_prefix(length);
  }
  return out;
}

std::optional<size_t> Markdown::span(std::string_view text, char before, bool complete,
                                     size_t depth, std::string& out) const {
  if (depth >= kDepthMax) return 0;
  if (text[0] == '`') return code_span(text, complete, out);
  if (text[0] == '[') return link(text, complete, depth, out);
  if (text[0] != '\\') return emphasis(text, before, complete, depth, out);
  // Brackets keep their backslash: it begins a formula.
  if (text.size() < 2) return complete ? std::optional<size_t>(0) : std::nullopt;
  if (!std::string_view("`*_~#|<>-.!").contains(text[1]) || !options_.styles) return 0;
  out += text[1];
  return 2;
}

std::optional<size_t> Markdown::code_span(std::string_view text, bool complete,
                                          std::string& out) const {
  const size_t ticks = run_length(text, '`');
  for (size_t place = ticks; (place = text.find('`', place)) != std::string_view::npos;) {
    const size_t length = run_length(text.substr(place), '`');
    if (length == ticks && (complete || place + length < text.size())) {
      const std::string_view code = text.substr(ticks, place - ticks);
      out += styled("36", "39", text.substr(0, ticks), code);
      return place + length;
    }
    place += length;
  }
  return complete ? std::optional<size_t>(0) : std::nullopt;
}

// Emphasis by CommonMark's rules, as far as one needs them: a marker opens before what is no space,
// closes behind what is none, and within words it is text.
std::optional<size_t> Markdown::emphasis(std::string_view text, char before, bool complete,
                                         size_t depth, std::string& out) const {
  const char marker = text[0];
  const size_t width = run_length(text, marker);
  if (width == text.size()) return complete ? std::optional<size_t>(0) : std::nullopt;
  const bool known = marker == '~' ? width == 2 : width <= 3;
  if (!known || is_alnum(before) || is_space(text[width])) return 0;
  for (size_t place = width; (place = text.find(marker, place)) != std::string_view::npos;) {
    const size_t length = run_length(text.substr(place), marker);
    const size_t behind = place + length;
    if (behind == text.size() && !complete) return std::nullopt;
    const bool ends_word = behind == text.size() || !is_alnum(text[behind]);
    if (length == width && !is_space(text[place - 1]) && ends_word) {
      const std::string inner = spans(text.substr(width, place - width), depth + 1);
      const std::string_view on = marker == '~' ? "9" : width == 1 ? "3" : width == 2 ? "1" : "1;3";
      const std::string_view off = marker == '~' ? "29"
                                   : width == 1  ? "23"
                                   : width == 2  ? "22"
                                                 : "22;23";
      out += styled(on, off, text.substr(0, width), inner);
      return behind;
    }
    place = behind;
  }
  return complete ? std::optional<size_t>(0) : std::nullopt;
}

std::optional<size_t> Markdown::link(std::string_view text, bool complete, size_t depth,
                                     std::string& out) const {
  const std::optional<size_t> undecided = complete ? std::optional<size_t>(0) : std::nullopt;
  const size_t close = text.find(']');
  if (close == std::string_view::npos || close + 1 == text.size()) return undecided;
  if (text[close + 1] != '(' || !options_.styles) return 0;
  const size_t end = text.find(')', close);
  if (end == std::string_view::npos) return undecided;
  const std::string_view address = text.substr(close + 2, end - close - 2);
  const std::string_view label = text.substr(1, close - 1);
  out += styled("4", "24", "", spans(label, depth + 1));
  if (address != label) out += fmt::format(" \x1b[2m({})\x1b[22m", address);
  return end + 1;
}

}  // namespace sluice::cli
