#include "cli/highlight.h"

#include <algorithm>
#include <cctype>

namespace sluice::cli {
namespace {

constexpr std::string_view kOff = "\x1b[39m", kComment = "\x1b[90m", kString = "\x1b[32m",
                           kNumber = "\x1b[36m", kWord = "\x1b[35m", kRemoved = "\x1b[31m";

constexpr std::string_view kPython[] = {
    "and",  "as",       "assert", "async",  "await",  "break", "class",   "continue",
    "def",  "del",      "elif",   "else",   "except", "False", "finally", "for",
    "from", "global",   "if",     "import", "in",     "is",    "lambda",  "match",
    "None", "nonlocal", "not",    "or",     "pass",   "raise", "return",  "self",
    "True", "try",      "while",  "with",   "yield"};
constexpr std::string_view kBraces[] = {
    "abstract", "async",      "auto",    "await",     "bool",      "break",     "case",   "catch",
    "char",     "class",      "const",   "constexpr", "continue",  "default",   "defer",  "delete",
    "do",       "double",     "else",    "enum",      "export",    "extends",   "extern", "false",
    "final",    "float",      "fn",      "for",       "func",      "function",  "go",     "if",
    "impl",     "implements", "import",  "in",        "int",       "interface", "let",    "long",
    "loop",     "match",      "mod",     "mut",       "namespace", "new",       "nil",    "null",
    "nullptr",  "override",   "package", "private",   "protected", "pub",       "public", "return",
    "self",     "short",      "signed",  "sizeof",    "static",    "string",    "struct", "super",
    "switch",   "template",   "this",    "throw",     "trait",     "true",      "try",    "type",
    "typedef",  "typename",   "typeof",  "undefined", "unsigned",  "use",       "using",  "var",
    "virtual",  "void",       "where",   "while",     "yield"};
constexpr std::string_view kShell[] = {"case",   "do",     "done", "elif",     "else",  "esac",
                                       "export", "fi",     "for",  "function", "if",    "in",
                                       "local",  "return", "set",  "then",     "until", "while"};
constexpr std::string_view kSql[] = {
    "ALTER",  "AND",   "AS",     "BY",    "CREATE", "DELETE", "DESC",   "DISTINCT", "DROP",
    "FROM",   "GROUP", "HAVING", "IN",    "INDEX",  "INNER",  "INSERT", "INTO",     "JOIN",
    "KEY",    "LEFT",  "LIMIT",  "NOT",   "NULL",   "ON",     "OR",     "ORDER",    "PRIMARY",
    "SELECT", "SET",   "TABLE",  "UNION", "UPDATE", "VALUES", "WHERE",  "WITH"};

struct Language {
  std::string_view names;  // between spaces
  std::span<const std::string_view> words;
  std::string_view line_comment;
  bool block_comments, triple_quotes;
};
constexpr Language kLanguages[] = {
    {" python py python3 ", kPython, "#", false, true},
    {" c c++ cpp cc h hpp objc java javascript js jsx typescript ts tsx go golang rust rs swift "
     "kotlin kt csharp c# cs scala dart php zig css ",
     kBraces, "//", true, false},
    {" json json5 jsonc ", std::span<const std::string_view>(), "//", false, false},
    {" sh bash shell zsh console fish dockerfile makefile make ", kShell, "#", false, false},
    {" yaml yml toml ini ruby rb r perl nix ", std::span<const std::string_view>(), "#", false,
     false},
    {" sql sqlite postgres postgresql mysql ", kSql, "--", true, false},
    {" lua haskell hs ", std::span<const std::string_view>(), "--", false, false}};

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](unsigned char c) { return std::tolower(c); });
  return out;
}

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

void paint(std::string& out, std::string_view colour, std::string_view text) {
  out.append(colour).append(text).append(kOff);
}

size_t word_length(std::string_view text) {
  return static_cast<size_t>(std::ranges::find_if_not(text, is_word) - text.begin());
}

}  // namespace

Highlighter::Highlighter(std::string_view language) {
  const std::string name = " " + lower(language.substr(0, language.find_first_of(" \t{:,"))) + " ";
  diff_ = name == " diff " || name == " patch ";
  known_ = diff_;
  if (name == "  ") return;
  for (const Language& entry : kLanguages) {
    if (!entry.names.contains(name)) continue;
    known_ = true;
    words_ = entry.words;
    line_comment_ = entry.line_comment;
    block_comments_ = entry.block_comments;
    triple_quotes_ = entry.triple_quotes;
  }
}

std::string Highlighter::diff_line(std::string_view text) const {
  std::string out;
  if (text.starts_with('+'))
    paint(out, kString, text);
  else if (text.starts_with('-'))
    paint(out, kRemoved, text);
  else if (text.starts_with("@@"))
    paint(out, kNumber, text);
  else
    out = text;
  return out;
}

// Text that begins with a quote: as far as the string goes on this line.
size_t Highlighter::take_quoted(std::string_view rest, std::string& out) {
  const std::string_view triple = rest.substr(0, 3);
  if (triple_quotes_ && (triple == "\"\"\"" || triple == "'''")) {
    const size_t end = rest.find(triple, 3);
    if (end == std::string_view::npos) until_ = triple;
    const size_t length = end == std::string_view::npos ? rest.size() : end + 3;
    paint(out, kString, rest.substr(0, length));
    return length;
  }
  size_t end = 1;
  while (end < rest.size() && rest[end] != rest[0]) end += rest[end] == '\\' ? 2 : 1;
  if (end >= rest.size() && rest[0] != '\'') {
    paint(out, kString, rest);
    return rest.size();
  }
  // An apostrophe, or Rust's lifetimes: no string at all.
  if (end >= rest.size()) {
    out += rest[0];
    return 1;
  }
  paint(out, kString, rest.substr(0, end + 1));
  return end + 1;
}

// The first piece of rest, which is not empty; returns its length.
size_t Highlighter::take(std::string_view rest, std::string& out) {
  const char first = rest[0];
  if (!line_comment_.empty() && rest.starts_with(line_comment_)) {
    paint(out, kComment, rest);
    return rest.size();
  }
  if (block_comments_ && rest.starts_with("/*")) {
    const size_t end = rest.find("*/", 2);
    if (end == std::string_view::npos) until_ = "*/";
    const size_t length = end == std::string_view::npos ? rest.size() : end + 2;
    paint(out, kComment, rest.substr(0, length));
    return length;
  }
  if (first == '"' || first == '\'' || first == '`') return take_quoted(rest, out);
  const size_t length = word_length(rest);
  if (length == 0) {
    out += first;
    return 1;
  }
  const std::string_view word = rest.substr(0, length);
  if (std::isdigit(static_cast<unsigned char>(first)) != 0)
    paint(out, kNumber, word);
  else if (std::ranges::find(words_, word) != words_.end())
    paint(out, kWord, word);
  else
    out += word;
  return length;
}

std::string Highlighter::line(std::string_view text) {
  if (!known_) return std::string(text);
  if (diff_) return diff_line(text);
  std::string out;
  if (!until_.empty()) {
    const size_t end = text.find(until_);
    const size_t length = end == std::string_view::npos ? text.size() : end + until_.size();
    paint(out, until_ == "*/" ? kComment : kString, text.substr(0, length));
    if (end != std::string_view::npos) until_.clear();
    text.remove_prefix(length);
  }
  while (!text.empty()) text.remove_prefix(take(text, out));
  return out;
}

}  // namespace sluice::cli
