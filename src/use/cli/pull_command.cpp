// `sluice pull`: downloads a model from a hub.
#include <CLI/CLI.hpp>

#include "base/units.h"
#include "cli/model.h"
#include "io/pull.h"

namespace sluice::cli {
namespace {

struct Options {
  std::string model, revision, folder;
  std::vector<std::string> include;
};

// "org/name", hf://…, or a page of the hub.
Result<io::HubAddress> address_of(const Options& options, const io::Hub& hub) {
  io::HubAddress address;
  if (io::looks_like_url(options.model)) {
    SLUICE_ASSIGN(const io::Url url, io::parse_url(options.model));
    const auto page = io::hub_page_address(url, hub.endpoint());
    if (!page)
      return fail(ErrorCode::kInvalidArgument,
                  "{} is no page of a model on {}; other servers are read in place: sluice fit {}",
                  url.label(), hub.endpoint().origin(), url.label());
    address = *page;
  } else {
    SLUICE_ASSIGN(address, io::parse_hub_address(options.model));
  }
  if (!options.revision.empty()) address.revision = options.revision;
  return address;
}

std::string default_folder(const io::HubAddress& address) {
  const std::string& path = address.folder.empty() ? address.repository : address.folder;
  return path.substr(path.find_last_of('/') + 1);
}

Json summary_json(const io::PullSummary& summary, const std::string& folder) {
  Json files = Json::array();
  for (const io::HubFile& file : summary.files) {
    Json entry{{"path", file.path}, {"bytes", file.bytes}};
    entry[file.sha256.empty() ? "git_sha1" : "sha256"] =
        file.sha256.empty() ? file.git_sha : file.sha256;
    files.push_back(std::move(entry));
  }
  return {{"folder", folder},
          {"repository", summary.address.repository},
          {"commit", summary.address.revision},
          {"bytes", summary.bytes},
          {"fetched_bytes", summary.fetched_bytes},
          {"files", std::move(files)},
          {"peak_resident_bytes", peak_resident_bytes()}};
}

Result<int> run(Context& context, const Options& options) {
  SLUICE_ASSIGN(const io::Hub hub, io::connect_hub(places_of(context), *context.console));
  SLUICE_ASSIGN(const io::HubAddress address, address_of(options, hub));
  const std::string folder = options.folder.empty() ? default_folder(address) : options.folder;
  io::PullOptions pull_options;
  pull_options.include = options.include;
  pull_options.cancel = context.cancel;
  pull_options.progress = context.console.get();
  pull_options.log = context.console.get();
  const auto summary = io::pull(*context.storage, hub, address, folder, pull_options);
  context.console->end();
  if (!summary) return std::unexpected(summary.error());
  if (context.options.json)
    context.print_json(summary_json(*summary, folder));
  else
    context.print(fmt::format(
        "{}: {} {}, {} ({} fetched), every SHA as the hub says, commit {}\nnext: sluice inspect "
        "{}\n",
        folder, summary->files.size(), summary->files.size() == 1 ? "file" : "files",
        bytes_text(summary->bytes), bytes_text(summary->fetched_bytes), summary->address.revision,
        shell_word(folder)));
  return kExitSuccess;
}

}  // namespace

void add_pull(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "pull", "download a model from a hub, with checks; run again, it goes on where it stopped");
  command->add_option("MODEL", options->model, "org/name, hf://org/name[@revision][/folder]")
      ->required()
      ->check(name_check());
  command->add_option("--revision", options->revision, "branch, tag or commit (default: main)")
      ->check(name_check());
  command
      ->add_option("--to", options->folder,
                   "where to, created (default: a folder of the model's name)")
      ->type_name("FOLDER")
      ->check(name_check());
  command
      ->add_option("--include", options->include,
                   "only files that match, such as '*Q4_K_M*'; may be repeated (default: what a "
                   "model needs, weights as safetensors)")
      ->type_name("GLOB")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command->footer(
      "Examples:\n"
      "  sluice pull Qwen/Qwen3-8B\n"
      "  sluice pull org/name-GGUF --include '*Q4_K_M*' --to models/name\n\n"
      "HF_TOKEN opens gated and private models, HF_ENDPOINT names another hub. To make a model "
      "that\n"
      "fits, nothing need be downloaded first: sluice fit hf://Qwen/Qwen3-8B reads it in place.");
  command->callback([&action, options] {
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
