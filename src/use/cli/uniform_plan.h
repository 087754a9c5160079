// A plan without analysis: one format for every quantizable module, as mlx_lm.convert makes it.
#pragma once

#include <string>

#include "allocate/plan.h"
#include "cli/model.h"

namespace sluice::cli {

// The format that a module gets in a uniform plan: the wanted one, a smaller group of the same
// width, or unquantized.
numerics::QuantFormat uniform_format(const families::OutputModule& module,
                                     numerics::QuantFormat wanted);

// Routers keep 8 bits at group 64, mlx_lm's own rule. A module whose rows the group does not divide
// gets the largest smaller group that does, or stays unquantized; both are noted on the console.
// The plan predicts no errors, and its budget is what it takes.
Result<allocate::Plan> uniform_plan(Context& context, const OpenedModel& model,
                                    const numerics::QuantFormat& format, numerics::Encoder encoder,
                                    const std::string& parity);

}  // namespace sluice::cli
