// Opening a model for a command, and the pieces of work that several commands share.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "allocate/allocate.h"
#include "allocate/devices.h"
#include "analyze/analyze.h"
#include "cli/context.h"
#include "convert/convert.h"
#include "io/activations.h"
#include "io/model_location.h"
#include "verify/verify.h"

namespace CLI {
class Option;
class Validator;
}  // namespace CLI

namespace sluice::cli {

// Opens MODEL wherever it is: a path, a name, hf:// or https://. Says what was found where.
Result<std::shared_ptr<const io::Checkpoint>> open_source(Context& context,
                                                          const std::string& model);
// The path of a model that must be on this machine: a path, or the name of a downloaded one.
Result<std::string> local_path(Context& context, const std::string& model);
// How the network is asked, from the environment.
io::ModelPlaces places_of(Context& context);

struct OpenedModel {
  std::shared_ptr<const io::Checkpoint> checkpoint;
  families::ModelMap map;
};

// dtype: --dtype or "". only_layers: --layers or "". Shows the map's notes.
Result<OpenedModel> open_model(Context& context, const std::string& path, const std::string& dtype,
                               const std::string& only_layers = "");

// Keys and values of 16 bits.
std::vector<allocate::KvGeometry> kv_geometry(std::span<const families::KvShape> shapes);

// An output's name on the command line: anything but nothing.
CLI::Validator name_check();
// --dtype.
void add_dtype_option(CLI::App& command, std::string& dtype);
// --layers.
CLI::Option* add_layers_option(CLI::App& command, std::string& only_layers);

// --best: "default", "all", "none" or a list such as "3/64,4/64".
Result<std::vector<numerics::QuantFormat>> parse_best(const std::string& text);

Result<analyze::Analysis> run_analysis(Context& context, const OpenedModel& model,
                                       const std::string& path, const std::string& best);

// One part's share; returns how many modules that is.
Result<uint64_t> run_analysis_part(Context& context, const OpenedModel& model,
                                   const std::string& path, const std::string& best,
                                   const stream::Part& part);

// --sensitivity: a file, or "" for the built-in table.
Result<allocate::SensitivityTable> load_sensitivity(Context& context, const std::string& path);

// The options of `plan` and `fit` that say what is wanted.
struct PlanOptions {
  std::string budget;  // a size, or several for `fit`
  std::string device;  // a profile's name
  uint64_t context_tokens = 8192;
  double bits_per_weight = 0;
  bool min_safe = false;
  double error_max = 0;
  double kl_max = 0;
  std::string objective = "nrmse-squared";
  std::string configs = "all";
  double sqnr_floor_db = 9;
  std::string sensitivity;  // a file, or empty for the built-in table
  std::string parity = "cpu";
};
// Adds them; exactly one of the targets must be given on the command line. Returns the group of the
// targets, for a command that has a further one.
enum class Budgets { kOne, kSeveral };
CLI::App* add_plan_options(CLI::App& command, PlanOptions& options, Budgets budgets);
// "8GB,16 GB" is "8GB" and "16GB".
std::vector<std::string> split_budgets(const std::string& text);

// What can be refused without an analysis: unknown devices, sensitivity files that do not load.
Status check_plan_options(Context& context, const PlanOptions& options);

// Prints the arithmetic of --device.
Result<allocate::Plan> run_plan(Context& context, const analyze::Analysis& analysis,
                                const PlanOptions& options);

// Of a folder that `sluice calibrate` made for this source. Errors: Activations::open's;
// kInvalidArgument when it is another model's.
Result<std::shared_ptr<const io::Activations>> open_activations(Context& context,
                                                                const io::Checkpoint& checkpoint,
                                                                const std::string& folder);

// The same plan with the feedback encoder wherever these tell what enters the products.
Result<allocate::Plan> with_feedback(const allocate::Plan& plan,
                                     const io::Activations& activations);

// activations: what the plan's feedback encoder goes by; may be null where it has none.
// prove: every block is held against its source before it is written, so that verification need not
// read the source again (run_verify's source_proved).
Result<convert::ConvertSummary> run_convert(
    Context& context, const OpenedModel& model, const allocate::Plan& plan, const std::string& out,
    std::function<Status(const std::string& partial)> before_publishing,
    const stream::Part& part = {}, convert::OutputClaim* claim = nullptr, bool prove = false,
    std::shared_ptr<const io::Activations> activations = nullptr);

Result<verify::VerifyReport> run_verify(
    Context& context, const io::Checkpoint& checkpoint, const std::string& out,
    const stream::Part& part = {}, bool source_proved = false,
    std::shared_ptr<const io::Activations> activations = nullptr);

}  // namespace sluice::cli
