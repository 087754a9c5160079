// The gate of `fit --effort best`: whether measured sensitivities and error feedback lower the
// divergence of this very model, judged on text that it writes itself and that neither of them was
// made from. Each variant of the plan becomes a whole output for a while, beside the one to come.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cli/model.h"
#include "evaluate/comparison.h"

namespace sluice::cli {

// One way to make the output. recorded: what the plan's feedback encoder goes by; null without.
struct Variant {
  std::string name;
  allocate::Plan plan;
  std::shared_ptr<const io::Activations> recorded;
};

struct GateArguments {
  std::string model;   // as it was opened
  std::string out;     // trial outputs lie beside it, one at a time
  std::string memory;  // the most that scoring may take: "8GB"
  std::string record;  // file of what was found, which a later run goes by
  double minutes_max = 0;
};

// The variant whose score says that it is better than the first beyond chance, by the paired 95 %
// interval, and of several such the best; the first where there is none.
size_t chosen_variant(std::span<const evaluate::Comparison> scores);

// Index of the variant to use. Says what it takes before it takes it, and takes the first variant
// unjudged, saying so, where trials would last longer than minutes_max. Scores of finished trials
// are in the record: a run that was stopped goes on. Errors: as conversion and running a model have
// them.
Result<size_t> pass_gate(Context& context, const OpenedModel& model,
                         std::span<const Variant> variants, const GateArguments& arguments);

}  // namespace sluice::cli
