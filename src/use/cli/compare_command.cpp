// `sluice compare`: several outputs of one model against the model itself, size against divergence
// and perplexity.
#include <CLI/CLI.hpp>
#include <algorithm>

#include "base/units.h"
#include "cli/comparing.h"
#include "cli/model.h"
#include "report/comparison.h"
#include "sluice_version.h"

namespace sluice::cli {
namespace {

using evaluate::Estimate;

struct Options {
  std::vector<std::string> models;
  ComparingOptions comparing;
};

double half_width(const Estimate& estimate) { return (estimate.high - estimate.low) / 2; }

std::string with_half(const Estimate& estimate, int digits) {
  return fmt::format("{:.{}f} ± {:.{}f}", estimate.mean, digits, half_width(estimate), digits);
}

std::string protocol_text(const ComparingOptions& options, size_t windows) {
  return fmt::format("{} windows as {} cuts them", windows, options.text.protocol);
}

// Two outputs may have one name in two folders.
void name_apart(std::vector<ComparedModel>& models) {
  std::vector<std::string> names;
  for (const ComparedModel& model : models) names.push_back(model.name);
  for (ComparedModel& model : models)
    if (std::ranges::count(names, model.name) > 1) model.name = model.path;
}

std::string table_text(const Options& options, const std::vector<ComparedModel>& models) {
  const evaluate::Comparison& first = models.front().scores;
  std::string text =
      fmt::format("{}: perplexity {}, {} tokens in {}\n\n", options.comparing.reference,
                  with_half(first.reference.perplexity, 4), first.reference.tokens,
                  protocol_text(options.comparing, first.windows.size()));
  Table table({Align::kLeft, Align::kRight, Align::kRight, Align::kRight, Align::kRight,
               Align::kRight, Align::kRight});
  table.add({"output", "size", "bits/weight", "KL divergence", "less the first's", "perplexity",
             "same top token"});
  for (const ComparedModel& model : models) {
    const Estimate difference = evaluate::paired_difference(model.scores.windows, first.windows).kl;
    table.add({model.name, bytes_text(model.bytes), fmt::format("{:.3f}", model.bits_per_weight()),
               with_half(model.scores.kl, 5),
               &model == &models.front()
                   ? ""
                   : fmt::format("{:+.5f} ± {:.5f}", difference.mean, half_width(difference)),
               with_half(model.scores.model.perplexity, 4),
               fmt::format("{:.2f} %", 100 * model.scores.agreement.mean)});
  }
  return text + table.text("") +
         "\nDivergence in nats per token; ± half of the 95 % interval over windows, of differences "
         "window by window.\n";
}

Json model_json(const ComparedModel& model) {
  Json json = evaluate::comparison_json(model.scores);
  json["name"] = model.name;
  json["path"] = model.path;
  json["storage"] = model.storage;
  json["weight_file_bytes"] = model.bytes;
  json["bits_per_weight"] = model.bits_per_weight();
  json["kl"] = estimate_json(model.scores.kl);
  json["perplexity"] = perplexity_json(model.scores.model);
  json["top1_agreement"] = estimate_json(model.scores.agreement);
  return json;
}

Json all_json(const Options& options, const std::vector<ComparedModel>& models) {
  Json list = Json::array(), pairs = Json::array();
  for (size_t i = 0; i < models.size(); ++i) {
    list.push_back(model_json(models[i]));
    for (size_t j = 0; j < i; ++j) {
      const auto found =
          evaluate::paired_difference(models[i].scores.windows, models[j].scores.windows);
      pairs.push_back({{"of", i},
                       {"less", j},
                       {"kl", estimate_json(found.kl)},
                       {"nats_per_token", estimate_json(found.nll)}});
    }
  }
  return {{"reference",
           {{"path", options.comparing.reference},
            {"perplexity", perplexity_json(models.front().scores.reference)}}},
          {"text", options.comparing.text.text},
          {"protocol", options.comparing.text.protocol},
          {"context", options.comparing.engine.context_tokens},
          {"models", std::move(list)},
          {"differences", std::move(pairs)}};
}

report::Interval interval(const Estimate& estimate) {
  return {estimate.mean, estimate.low, estimate.high};
}

report::ComparisonInput page_input(const Options& options,
                                   const std::vector<ComparedModel>& models) {
  const evaluate::Comparison& first = models.front().scores;
  report::ComparisonInput input;
  input.name = options.comparing.reference;
  input.reference_perplexity = interval(first.reference.perplexity);
  input.tool = fmt::format("sluice {}", kVersion);
  for (const ComparedModel& model : models) {
    const evaluate::Comparison& scores = model.scores;
    input.outputs.push_back({model.name, model.storage, model.bytes, model.bits_per_weight(),
                             interval(scores.kl), scores.spread.p99,
                             interval(scores.model.perplexity), interval(scores.agreement)});
    std::vector<report::Interval>& row = input.differences.emplace_back();
    for (const ComparedModel& other : models)
      row.push_back(interval(evaluate::paired_difference(scores.windows, other.scores.windows).kl));
  }
  const EngineArguments& engine = options.comparing.engine;
  input.origin = {{"text", options.comparing.text.text},
                  {"windows", protocol_text(options.comparing, first.windows.size())},
                  {"context", fmt::format("{} tokens", engine.context_tokens)},
                  {"scored", fmt::format("{} tokens", first.reference.tokens)},
                  {"activations", engine.activations},
                  {"keys and values", engine.kv}};
  return input;
}

Status write_files(Context& context, const Options& options,
                   const std::vector<ComparedModel>& models) {
  const report::ComparisonInput input = page_input(options, models);
  const auto write = [&](std::string_view name, const std::string& text) {
    return io::write_file_atomically(*context.storage,
                                     fmt::format("{}/{}", options.comparing.folder, name), text);
  };
  SLUICE_TRY(write("comparison.json", dump_json(all_json(options, models), 1) + "\n"));
  SLUICE_TRY(write("comparison.svg", report::comparison_document(input)));
  return write("comparison.html", report::comparison_page(input));
}

Result<int> run(Context& context, const Options& options) {
  SLUICE_ASSIGN(const auto comparing, Comparing::begin(context, options.comparing));
  std::vector<ComparedModel> models;
  for (const std::string& path : options.models) {
    SLUICE_ASSIGN(ComparedModel model, comparing->score(path));
    models.push_back(std::move(model));
  }
  name_apart(models);
  if (!options.comparing.folder.empty()) SLUICE_TRY(write_files(context, options, models));
  if (context.options.json)
    context.print_json(all_json(options, models));
  else
    context.print(table_text(options, models));
  return kExitSuccess;
}

}  // namespace

void add_compare(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  ComparingOptions& comparing = options->comparing;
  comparing.engine.context_tokens = 512;
  CLI::App* command = app.add_subcommand(
      "compare", "several outputs of a model: size against KL divergence and perplexity");
  command
      ->add_option("REF", comparing.reference,
                   "the model that they were made from, or what `sluice eval --save-reference` "
                   "kept of it, for models that do not fit into memory beside their outputs")
      ->type_name("PATH")
      ->required();
  command->add_option("MODEL", options->models, "outputs: folders, .gguf files")
      ->type_name("PATH")
      ->required();
  command
      ->add_option("--text", comparing.text.text,
                   "a text file, read in windows of --context tokens")
      ->required();
  command
      ->add_option(
          "-o,--output", comparing.folder,
          "a folder for the page, the drawing, all figures, and the scores of each output, "
          "which are not measured twice")
      ->type_name("FOLDER")
      ->check(name_check());
  add_window_options(*command, comparing.text);
  add_engine_options(*command, comparing.engine);
  command->footer(
      "Examples:\n"
      "  sluice compare Qwen3-8B Qwen3-8B-5GB Qwen3-8B-6GB --text wiki.test.raw -o compared\n"
      "  sluice compare ref Qwen3-8B-5GB qwen3-8b-q4_k_m.gguf --text wiki.test.raw");
  command->callback([&action, options] {
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
