// `sluice push`: uploads an output folder to a hub.
#include <CLI/CLI.hpp>

#include "base/units.h"
#include "cli/model.h"
#include "io/push.h"

namespace sluice::cli {
namespace {

struct Options {
  std::string folder, repository, revision = "main", message;
  bool create = false, is_private = false;
};

Result<int> run(Context& context, const Options& options) {
  std::string folder = options.folder;
  while (folder.size() > 1 && folder.back() == '/') folder.pop_back();
  if (folder.ends_with(".partial"))
    return fail(ErrorCode::kInvalidArgument,
                "{} is unfinished; run the command that writes it again first", folder);
  SLUICE_ASSIGN(const io::Hub hub, io::connect_hub(places_of(context), *context.console));
  io::PushOptions push_options;
  push_options.revision = options.revision;
  push_options.message = options.message;
  push_options.create = options.create;
  push_options.is_private = options.is_private;
  push_options.cancel = context.cancel;
  push_options.progress = context.console.get();
  push_options.log = context.console.get();
  const auto summary = io::push(*context.storage, hub, folder, options.repository, push_options);
  context.console->end();
  if (!summary) return std::unexpected(summary.error());
  if (context.options.json)
    context.print_json({{"repository", options.repository},
                        {"commit", summary->commit},
                        {"url", summary->url},
                        {"files", summary->files},
                        {"bytes", summary->bytes},
                        {"uploaded_bytes", summary->uploaded_bytes},
                        {"peak_resident_bytes", peak_resident_bytes()}});
  else
    context.print(fmt::format("{}: {} files, {} ({} uploaded), commit {}\n{}\n", options.repository,
                              summary->files, bytes_text(summary->bytes),
                              bytes_text(summary->uploaded_bytes), summary->commit, summary->url));
  return kExitSuccess;
}

}  // namespace

void add_push(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "push", "upload an output with its card to a hub; run again, it goes on where it stopped");
  command->add_option("DIR", options->folder, "the folder to upload")
      ->type_name("FOLDER")
      ->required()
      ->check(name_check());
  command->add_option("REPOSITORY", options->repository, "org/name")
      ->required()
      ->check(name_check());
  command->add_flag("--create", options->create, "create the repository unless it is there");
  command->add_flag("--private", options->is_private, "as a private one")->needs("--create");
  command->add_option("--revision", options->revision, "the branch to commit to")
      ->capture_default_str()
      ->check(name_check());
  options->message = "Upload by Sluice";
  command->add_option("--message", options->message, "of the commit")
      ->capture_default_str()
      ->check(name_check());
  command->footer(
      "Examples:\n"
      "  sluice push Qwen3-8B-6GB me/Qwen3-8B-6GB --create\n"
      "  sluice push Qwen3-8B-6GB me/Qwen3-8B-6GB --create --private\n\n"
      "HF_TOKEN must be a token that may write. run.json, which tells of this machine, stays "
      "here.");
  command->callback([&action, options] {
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
