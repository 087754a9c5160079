// The man page: sluice(1), from the command tree.
#include <fmt/format.h>

#include "cli/completions.h"

namespace sluice::cli {
namespace {

// Text as roff takes it: backslashes and minus signs escaped, no line that begins like a request.
std::string roff(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '\\') {
      escaped += "\\e";
    } else if (c == '-') {
      escaped += "\\-";
    } else if ((c == '.' || c == '\'') && (escaped.empty() || escaped.back() == '\n')) {
      escaped += fmt::format("\\&{}", c);
    } else {
      escaped += c;
    }
  }
  return escaped;
}

std::string synopsis(const CommandInfo& command) {
  std::string text = fmt::format("\\fBsluice {}\\fR", roff(command.name));
  for (const OptionInfo& option : command.options)
    if (!option.positional && option.required)
      text += fmt::format(" \\fB{}\\fR \\fI{}\\fR", roff(option.names[0]), roff(option.value));
  for (const OptionInfo& option : command.options)
    if (option.positional)
      text += option.required ? fmt::format(" \\fI{}\\fR", roff(option.names[0]))
                              : fmt::format(" [\\fI{}\\fR]", roff(option.names[0]));
  return text + " [\\fIoptions\\fR]";
}

std::string option_entry(const OptionInfo& option) {
  std::string names;
  for (const std::string& name : option.names)
    names += fmt::format("{}\\f{}{}\\fR", names.empty() ? "" : ", ", option.positional ? 'I' : 'B',
                         roff(name));
  if (!option.positional && option.takes_value())
    names += fmt::format(" \\fI{}\\fR", roff(option.value));
  std::string text = roff(option.description);
  std::string choices;
  for (const std::string& choice : option.choices)
    choices += (choices.empty() ? "" : ", ") + roff(choice);
  if (!choices.empty()) text += fmt::format(". One of {}", choices);
  if (!option.default_text.empty()) text += fmt::format(". Default: {}", roff(option.default_text));
  return fmt::format(".TP\n{}\n{}.\n", names, text);
}

std::string option_entries(const CommandInfo& command) {
  std::string text;
  for (const OptionInfo& option : command.options)
    if (option.positional) text += option_entry(option);
  for (const OptionInfo& option : command.options)
    if (!option.positional && option.names[0] != "-h") text += option_entry(option);
  return text;
}

std::string example_lines(const CommandInfo& command) {
  if (command.examples.empty()) return "";
  std::string lines;
  for (const std::string& example : command.examples) lines += roff(example) + "\n";
  return fmt::format(".PP\n.nf\n.RS\n{}.RE\n.fi\n", lines);
}

// Of the last change to what is written here and not read off the tree: the page must not depend on
// when it is built.
constexpr std::string_view kDate = "2026-11-21";

constexpr std::string_view kSettings = R"(.SH SETTINGS
Every optional option can be set beforehand. The command line wins over the environment, the
environment over the file, the file over built\-in defaults. Options that every command takes are
keys at the file's top level; a command's options are keys in the table of that command. Options of
which one must be given cannot be set.
.PP
.nf
.RS
threads = 4
.sp
[fit]
best = "none"
sqnr\-floor = 10
.RE
.fi
.SH ENVIRONMENT
.TP
\fBSLUICE_\fIOPTION\fR, \fBSLUICE_\fICOMMAND\fB_\fIOPTION\fR
A setting, in capitals and with underscores: \fBSLUICE_THREADS\fR, \fBSLUICE_FIT_SQNR_FLOOR\fR.
.TP
\fBXDG_CONFIG_HOME\fR
Where settings are looked for instead of \fI~/.config\fR.
.SH FILES
.TP
\fI~/.config/sluice/config.toml\fR
Settings.
.TP
\fI~/.config/sluice/devices.toml\fR
Device profiles beside the built\-in ones; tables
\fB[devices."NAME"]\fR may stand in \fIconfig.toml\fR too.
.SH EXIT STATUS
.TP
0
Success.
.TP
1
A check failed: the output is not what it should be.
.TP
2
Bad usage: the command line or a setting.
.TP
3
Bad input: a file, a model or a plan.
.TP
4
Reading or writing failed, or no space is left.
.TP
5
Interrupted; the same command goes on where it stopped.
)";

}  // namespace

std::string man_page(const CommandInfo& tree, const std::string& version) {
  std::string text = fmt::format(
      ".\\\" Made by `sluice man`.\n.TH SLUICE 1 {} \"Sluice {}\" \"User Commands\"\n"
      ".SH NAME\nsluice \\- fits a language model into the memory you have\n.SH SYNOPSIS\n",
      kDate, roff(version));
  for (size_t i = 0; i < tree.commands.size(); ++i)
    text += (i == 0 ? "" : ".br\n") + synopsis(tree.commands[i]) + "\n";
  text += fmt::format(
      ".SH DESCRIPTION\n{}\n"
      "Sizes carry a unit: GB is 10^9 bytes, GiB 2^30; a bare number is refused.\n"
      ".SH OPTIONS\nEvery command takes these.\n{}.SH COMMANDS\n",
      roff(tree.description), option_entries(tree));
  for (const CommandInfo& command : tree.commands)
    text += fmt::format(".SS \"{}\"\n{}.\n{}{}", roff(command.name), roff(command.description),
                        option_entries(command), example_lines(command));
  text += kSettings;
  if (!tree.examples.empty()) text += ".SH EXAMPLES\n" + example_lines(tree).substr(4);
  return text;
}

}  // namespace sluice::cli
