// `sluice merge`: finishes a job that ran as parts, whichever command's parts they are.
#include <CLI/CLI.hpp>
#include <filesystem>

#include "base/units.h"
#include "cli/model.h"
#include "cli/summaries.h"
#include "convert/parts.h"

namespace sluice::cli {
namespace {

struct Options {
  std::string out, model;
};

Result<int> merge_output(Context& context, const Options& options) {
  SLUICE_ASSIGN(const convert::PartsJob job,
                convert::read_parts_job(*context.storage, options.out));
  const std::string path = options.model.empty() ? job.model : options.model;
  SLUICE_ASSIGN(const OpenedModel model,
                open_model(context, path, job.plan.data().dtype, job.plan.data().only_layers));
  convert::ConvertOptions convert_options;
  convert_options.workers = context.workers;
  convert_options.simd = context.simd;
  convert_options.cancel = context.cancel;
  convert_options.log = context.console.get();
  SLUICE_ASSIGN(const convert::ConvertSummary summary,
                convert::merge(*context.storage, *model.checkpoint, model.map, job.plan, job.parts,
                               options.out, convert_options));
  if (context.options.json) {
    context.print_json({{"output", options.out},
                        {"parts", job.parts},
                        {"weight_file_bytes", summary.weight_file_bytes},
                        {"shards", summary.shards}});
  } else {
    context.print(fmt::format("{}: {} parts, {} in {} {}\nnext: sluice verify {} {}\n", options.out,
                              job.parts, bytes_text(summary.weight_file_bytes), summary.shards,
                              summary.shards == 1 ? "shard" : "shards", shell_word(path),
                              shell_word(options.out)));
  }
  return kExitSuccess;
}

Result<int> merge_verification(Context& context, const Options& options) {
  SLUICE_ASSIGN(const verify::VerifyReport report,
                verify::merge_verified_parts(*context.storage, options.out));
  if (context.options.json)
    context.print_json(verify_json(report));
  else
    context.print(verify_text(report, options.out));
  return report.passed() ? kExitSuccess : kExitCheckFailed;
}

Result<int> merge_analysis(Context& context, const Options& options) {
  SLUICE_ASSIGN(const analyze::Analysis analysis,
                analyze::merge_analysis(*context.storage, options.out));
  if (context.options.json)
    context.print_json({{"file", options.out},
                        {"modules", analysis.records.size()},
                        {"source", analysis.header.source.hex()},
                        {"digest", analysis.digest.hex()}});
  else
    context.print(fmt::format("{}: {} modules analyzed\nnext: sluice plan {} --budget 24GB\n",
                              options.out, analysis.records.size(), shell_word(options.out)));
  return kExitSuccess;
}

Result<int> run(Context& context, const Options& options) {
  io::Storage& storage = *context.storage;
  if (storage.exists(convert::parts_path(options.out))) return merge_output(context, options);
  std::error_code ignored;
  if (std::filesystem::is_directory(options.out, ignored)) {
    SLUICE_ASSIGN(const bool verified, verify::has_verified_parts(storage, options.out));
    if (verified) return merge_verification(context, options);
    return fail(ErrorCode::kInvalidArgument, "{}: there are no parts of it to join", options.out);
  }
  return merge_analysis(context, options);
}

}  // namespace

void add_merge(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "merge", "finish a job that ran as parts: an output, an analysis, or a verification");
  command
      ->add_option("OUT", options->out,
                   "what -o said for analyze or quantize; the output folder for verify")
      ->required()
      ->check(name_check());
  command->add_option("--model", options->model,
                      "where the source is now (default: where the parts found it)");
  command->footer(
      "Examples, on four machines that share a folder:\n"
      "  srun -n 4 sluice analyze /models/Qwen3-235B -o q.analysis && sluice merge q.analysis\n"
      "  sluice plan q.analysis --budget 96GB -o plan.json\n"
      "  mpirun -n 4 sluice quantize /models/Qwen3-235B --plan plan.json -o Q && sluice merge Q\n"
      "  mpirun -n 4 sluice verify /models/Qwen3-235B Q && sluice merge Q");
  command->callback([&action, options] {
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
