#include "cli/model.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <set>

#include "base/units.h"
#include "cli/user_devices.h"
#include "kernels/kernel_table.h"
#include "stream/feedback_factors.h"
#include "stream/stream.h"
#include "verify/block_prover.h"

namespace sluice::cli {
namespace {

// Leaves room for the sizes in a window of 100 columns.
constexpr size_t kBudgetLineWidth = 80;
constexpr uint64_t kSensitivityBytesMax = 64ull << 20;

uint64_t bytes_of_part(const io::Checkpoint& checkpoint, const families::ModelMap& map,
                       const stream::Part& part) {
  std::vector<uint32_t> modules(map.modules.size());
  for (uint32_t i = 0; i < modules.size(); ++i) modules[i] = i;
  modules = stream::modules_of_part(checkpoint, map, modules, part);
  return stream::source_bytes(checkpoint, map, modules);
}

// Ends a stage's progress bar however the stage ends.
class ProgressScope {
 public:
  explicit ProgressScope(Console& console) : console_(console) {}
  ~ProgressScope() { console_.end(); }
  ProgressScope(const ProgressScope&) = delete;
  ProgressScope& operator=(const ProgressScope&) = delete;

 private:
  Console& console_;
};

// What a parser of ours refuses is bad usage, found while the command line is parsed.
template <class Parse>
CLI::Validator usage_check(Parse parse, const std::string& name) {
  return {[parse](const std::string& text) {
            const auto parsed = parse(text);
            return parsed ? std::string() : parsed.error().message;
          },
          name};
}

// CLI::PositiveNumber lets NaN pass and spells out the largest double when it refuses infinity.
CLI::Validator positive_check() {
  return {[](const std::string& text) {
            double value = 0;
            const bool good =
                CLI::detail::lexical_cast(text, value) && value > 0 && std::isfinite(value);
            return good ? std::string() : fmt::format("\"{}\" is no positive number", text);
          },
          "NUMBER"};
}

// Sizes, no two of them spelled alike: each names an output.
Status check_budgets(const std::string& text) {
  std::set<std::string> seen;
  for (const std::string& budget : split_budgets(text)) {
    if (const auto bytes = parse_bytes(budget); !bytes) return std::unexpected(bytes.error());
    if (!seen.insert(budget).second)
      return fail(ErrorCode::kInvalidArgument, "the budget {} is given twice", budget);
  }
  return {};
}

Result<uint64_t> budget_of_device(Context& context, const analyze::Analysis& analysis,
                                  const PlanOptions& options) {
  SLUICE_ASSIGN(const auto devices, known_devices(context));
  SLUICE_ASSIGN(const allocate::DeviceProfile device,
                allocate::find_device(devices, options.device));
  const std::vector<allocate::KvGeometry> kv = kv_geometry(analysis.header.kv);
  SLUICE_ASSIGN(const allocate::DeviceBudget budget,
                allocate::device_budget(device, options.context_tokens, kv));
  Table table({Align::kLeft, Align::kRight});
  for (const allocate::BudgetLine& line : budget.lines) {
    const auto magnitude = static_cast<uint64_t>(std::llabs(line.bytes));
    std::vector<std::string> name = wrapped(line.name, kBudgetLineWidth);
    table.add({name.front(), (line.bytes < 0 ? "− " : "") + bytes_text(magnitude)});
    for (size_t i = 1; i < name.size(); ++i) table.add({"  " + name[i], ""});
  }
  table.add({"left for the model's weights", bytes_text(budget.bytes)});
  context.console->info(fmt::format("{} at a context of {} tokens:\n{}", device.name,
                                    options.context_tokens, table.text("  ")));
  return budget.bytes;
}

Result<allocate::Target> plan_target(Context& context, const analyze::Analysis& analysis,
                                     const PlanOptions& options) {
  if (!options.budget.empty()) {
    SLUICE_ASSIGN(const uint64_t bytes, parse_bytes(options.budget));
    return allocate::BudgetTarget{bytes, size_unit(options.budget)};
  }
  if (!options.device.empty()) {
    SLUICE_ASSIGN(const uint64_t bytes, budget_of_device(context, analysis, options));
    return allocate::BudgetTarget{bytes, ""};
  }
  if (options.min_safe) return allocate::MinSafeTarget{};
  if (options.error_max != 0) return allocate::MaxErrorTarget{options.error_max};
  if (options.kl_max != 0) return allocate::MaxCostTarget{options.kl_max};
  return allocate::BitsTarget{options.bits_per_weight};
}

// A cost is a divergence only under the right table and power.
Status check_kl_target(const PlanOptions& options, const allocate::SensitivityTable& table) {
  if (options.kl_max == 0) return {};
  if (!table.in_nats)
    return fail(
        ErrorCode::kInvalidArgument,
        "--max-kl takes measured sensitivities; {} has none. Make them with `sluice analyze "
        "MODEL -o FILE --sensitivity data-free` and give them with --sensitivity",
        table.id());
  if (options.objective != "nrmse-squared")
    return fail(ErrorCode::kInvalidArgument,
                "--max-kl goes with --objective nrmse-squared, which predicts it; {} does not",
                options.objective);
  return {};
}

}  // namespace

io::ModelPlaces places_of(Context& context) {
  io::ModelPlaces places = io::model_places(context.environment);
  places.http.cancel = context.cancel;
  places.http.log = context.console.get();
  return places;
}

Result<std::shared_ptr<const io::Checkpoint>> open_source(Context& context,
                                                          const std::string& model) {
  return io::open_model(model, places_of(context), *context.console);
}

Result<std::string> local_path(Context& context, const std::string& model) {
  return io::local_model_path(model, places_of(context), *context.console);
}

std::vector<allocate::KvGeometry> kv_geometry(std::span<const families::KvShape> shapes) {
  std::vector<allocate::KvGeometry> geometry;
  for (const families::KvShape& shape : shapes)
    geometry.push_back({shape.layers, shape.kv_heads, shape.head_dim, 2, shape.window});
  return geometry;
}

Result<OpenedModel> open_model(Context& context, const std::string& path, const std::string& dtype,
                               const std::string& only_layers) {
  SLUICE_ASSIGN(auto checkpoint, open_source(context, path));
  SLUICE_ASSIGN(families::ModelMap map, families::map_model(*checkpoint, dtype, only_layers));
  for (const std::string& note : map.notes) context.console->info(note);
  if (!map.only_layers.empty())
    context.console->info(fmt::format("layers {} of {} alone; what comes of them is marked so",
                                      map.only_layers, map.layers));
  return OpenedModel{std::move(checkpoint), std::move(map)};
}

Result<allocate::SensitivityTable> load_sensitivity(Context& context, const std::string& path) {
  if (path.empty()) return allocate::builtin_sensitivity();
  SLUICE_ASSIGN(const auto source, context.storage->open_source(path));
  SLUICE_ASSIGN(const std::string text, io::read_text(*source, kSensitivityBytesMax));
  return allocate::parse_sensitivity(text, path);
}

CLI::Validator name_check() {
  return {[](const std::string& text) { return text.empty() ? "the name is empty" : ""; }, ""};
}

void add_dtype_option(CLI::App& command, std::string& dtype) {
  command.add_option("--dtype", dtype, "type of what is not quantized, and of scales and biases")
      ->check(CLI::IsMember({"float16", "bfloat16", "float32"}));
}

CLI::Option* add_layers_option(CLI::App& command, std::string& only_layers) {
  return command
      .add_option("--layers", only_layers,
                  "only these layers, such as 0-1, to try out a huge model")
      ->check(name_check());
}

Result<std::vector<numerics::QuantFormat>> parse_best(const std::string& text) {
  std::vector<numerics::QuantFormat> formats;
  if (text == "none") return formats;
  if (text == "default") {
    const auto defaults = kernels::default_best_formats();
    formats.assign(defaults.begin(), defaults.end());
  } else if (text == "all") {
    for (const uint8_t bits : numerics::kAffineBits)
      for (const uint16_t group : numerics::kAffineGroups)
        formats.push_back({numerics::QuantMode::kAffine, bits, group});
    formats.insert(formats.end(), std::begin(numerics::kFpFormats), std::end(numerics::kFpFormats));
  } else {
    for (const std::string& word : CLI::detail::split(text, ',')) {
      SLUICE_ASSIGN(const numerics::QuantFormat format, numerics::parse_format(word));
      if (format.mode == numerics::QuantMode::kFloat)
        return fail(ErrorCode::kInvalidArgument, "--best takes quantized formats, found \"{}\"",
                    word);
      formats.push_back(format);
    }
  }
  std::ranges::sort(formats);
  const auto repeats = std::ranges::unique(formats);
  formats.erase(repeats.begin(), repeats.end());
  return formats;
}

Result<uint64_t> run_analysis_part(Context& context, const OpenedModel& model,
                                   const std::string& path, const std::string& best,
                                   const stream::Part& part) {
  analyze::AnalyzeOptions options;
  SLUICE_ASSIGN(options.best_formats, parse_best(best));
  options.part = part;
  options.workers = context.workers;
  options.simd = context.simd;
  options.cancel = context.cancel;
  options.progress = context.console.get();
  options.log = context.console.get();
  const ProgressScope progress(*context.console);
  return analyze::analyze_part(*context.storage, *model.checkpoint, model.map, path, options);
}

Result<analyze::Analysis> run_analysis(Context& context, const OpenedModel& model,
                                       const std::string& path, const std::string& best) {
  SLUICE_TRY(run_analysis_part(context, model, path, best, {}));
  SLUICE_ASSIGN(const auto source, context.storage->open_source(path));
  return analyze::load_analysis(*source);
}

std::vector<std::string> split_budgets(const std::string& text) {
  std::vector<std::string> budgets(1);
  for (const char c : text) {
    if (c == ',')
      budgets.emplace_back();
    else if (c != ' ')
      budgets.back() += c;
  }
  return budgets;
}

CLI::App* add_plan_options(CLI::App& command, PlanOptions& options, Budgets budgets) {
  CLI::App* targets = command.add_option_group("what to plan for, exactly one");
  targets->require_option(1);
  targets
      ->add_option("--budget", options.budget,
                   budgets == Budgets::kOne
                       ? "bytes of all weight files, headers included: 24GB, 1.5GiB"
                       : "bytes of all weight files, headers included: 24GB, 1.5GiB; several by "
                         "commas make one output each")
      ->check(budgets == Budgets::kOne ? usage_check(parse_bytes, "SIZE")
                                       : usage_check(check_budgets, "SIZES"));
  targets
      ->add_option("--device", options.device,
                   "fit a device (see `sluice devices`), at --context tokens")
      ->check(name_check());
  targets->add_option("--bpw", options.bits_per_weight, "bits per weight, all tensors counted")
      ->check(positive_check());
  targets->add_flag("--min-safe", options.min_safe,
                    "the smallest plan in which every module keeps the SQNR floor");
  targets
      ->add_option("--max-error", options.error_max,
                   "the smallest plan in which no module's NRMSE exceeds this")
      ->check(positive_check());
  targets
      ->add_option("--max-kl", options.kl_max,
                   "the smallest plan whose predicted KL divergence from the original, in nats per "
                   "token, is at most this; takes measured sensitivities")
      ->check(positive_check());
  command.add_option("--context", options.context_tokens, "context length for --device")
      ->capture_default_str();
  command.add_option("--objective", options.objective, "what to minimise, summed over modules")
      ->check(usage_check(allocate::parse_objective, "{nrmse-squared,nrmse-linear}"))
      ->capture_default_str();
  command
      .add_option("--configs", options.configs,
                  "formats to choose from: all, mint-v1, or a list such as 4/64,mxfp4,16-bit")
      ->check(usage_check(allocate::parse_configs, "LIST"))
      ->capture_default_str();
  command.add_option("--sqnr-floor", options.sqnr_floor_db, "least SQNR of a module in dB")
      ->capture_default_str();
  command
      .add_option(
          "--sensitivity", options.sensitivity,
          "a file of weights by role, depth or module instead of the built-in table, such as "
          "`sluice analyze --sensitivity` measures")
      ->type_name("FILE");
  command.add_option("--parity", options.parity, "rounding rule of MLX to reproduce: cpu or gpu")
      ->check(CLI::IsMember({"cpu", "gpu"}))
      ->capture_default_str();
  return targets;
}

Status check_plan_options(Context& context, const PlanOptions& options) {
  if (!options.device.empty()) {
    SLUICE_ASSIGN(const auto devices, known_devices(context));
    SLUICE_TRY(allocate::find_device(devices, options.device));
  }
  SLUICE_ASSIGN(const auto table, load_sensitivity(context, options.sensitivity));
  return check_kl_target(options, table);
}

Result<allocate::Plan> run_plan(Context& context, const analyze::Analysis& analysis,
                                const PlanOptions& options) {
  allocate::PlanRequest request;
  SLUICE_ASSIGN(request.target, plan_target(context, analysis, options));
  SLUICE_ASSIGN(request.settings.objective, allocate::parse_objective(options.objective));
  SLUICE_ASSIGN(request.settings.configs, allocate::parse_configs(options.configs));
  request.settings.sqnr_floor_db = options.sqnr_floor_db;
  SLUICE_ASSIGN(request.sensitivity, load_sensitivity(context, options.sensitivity));
  SLUICE_TRY(check_kl_target(options, request.sensitivity));
  request.origin = {analysis.header.source, analysis.digest, analysis.header.family,
                    analysis.header.dtype,  options.parity,  analysis.header.only_layers};
  if (!analysis.header.only_layers.empty())
    context.console->warn(fmt::format("the analysis covers layers {} alone, and so does the plan",
                                      analysis.header.only_layers));
  return allocate::make_plan(analysis.items(), request, [&](std::span<const uint32_t> choice) {
    return analysis.exact_bytes(choice);
  });
}

Result<std::shared_ptr<const io::Activations>> open_activations(Context& context,
                                                                const io::Checkpoint& checkpoint,
                                                                const std::string& folder) {
  SLUICE_ASSIGN(auto activations, io::Activations::open(*context.storage, folder));
  if (activations->manifest().model != checkpoint.identity_digest())
    return fail(ErrorCode::kInvalidArgument,
                "{} was recorded from another model than {} (identity {}, recorded {})", folder,
                checkpoint.path, checkpoint.identity_digest().hex(),
                activations->manifest().model.hex());
  return activations;
}

Result<allocate::Plan> with_feedback(const allocate::Plan& plan,
                                     const io::Activations& activations) {
  return allocate::with_feedback(plan, activations.digest(), [&](const std::string& tensor) {
    return activations.find(tensor).has_value();
  });
}

Result<convert::ConvertSummary> run_convert(
    Context& context, const OpenedModel& model, const allocate::Plan& plan, const std::string& out,
    std::function<Status(const std::string& partial)> before_publishing, const stream::Part& part,
    convert::OutputClaim* claim, bool prove, std::shared_ptr<const io::Activations> activations) {
  convert::ConvertOptions options;
  std::unique_ptr<stream::FeedbackFactors> feedback;
  if (activations != nullptr) {
    context.console->info(
        fmt::format("error feedback takes up to {} of memory",
                    bytes_text(stream::feedback_bytes(*activations, context.workers))));
    feedback = std::make_unique<stream::FeedbackFactors>(std::move(activations));
    options.feedback = feedback.get();
  }
  std::unique_ptr<verify::BlockProver> prover;
  if (prove) {
    prover = std::make_unique<verify::BlockProver>(*model.checkpoint, model.map, plan,
                                                   context.workers, context.simd);
    options.prove_block = [&prover](const stream::RowBlock& block,
                                    const convert::EncodedBlock& made, unsigned worker) {
      return prover->prove(block, {made.weight, made.scales, made.biases}, worker);
    };
  }
  options.part = part;
  options.workers = context.workers;
  options.simd = context.simd;
  options.cancel = context.cancel;
  options.progress = context.console.get();
  options.log = context.console.get();
  options.before_publishing = std::move(before_publishing);
  options.claim = claim;
  return convert::convert(*context.storage, *model.checkpoint, model.map, plan, out, options);
}

Result<verify::VerifyReport> run_verify(Context& context, const io::Checkpoint& checkpoint,
                                        const std::string& out, const stream::Part& part,
                                        bool source_proved,
                                        std::shared_ptr<const io::Activations> activations) {
  verify::VerifyOptions options;
  options.source_proved = source_proved;
  options.activations = std::move(activations);
  options.part = part;
  options.workers = context.workers;
  options.simd = context.simd;
  options.cancel = context.cancel;
  options.progress = context.console.get();
  SLUICE_ASSIGN(const families::ModelMap map,
                verify::recorded_map(*context.storage, checkpoint, out));
  const ProgressScope progress(*context.console);
  context.console->begin("verify", bytes_of_part(checkpoint, map, part));
  return part.whole() ? verify::verify(*context.storage, checkpoint, out, options)
                      : verify::verify_part(*context.storage, checkpoint, out, options);
}

}  // namespace sluice::cli
