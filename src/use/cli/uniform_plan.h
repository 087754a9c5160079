// Plans without analysis, as mlx_lm.convert makes them: one format for every quantizable module, or
// one of its mixed recipes.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "allocate/plan.h"
#include "cli/model.h"

namespace sluice::cli {

// The format that a module gets in a uniform plan: the wanted one, a smaller group of the same
// width, or unquantized; or the one in which its publisher packed it, where that takes no more.
numerics::QuantFormat uniform_format(const OpenedModel& model, const families::OutputModule& module,
                                     const numerics::QuantFormat& wanted);

// The format wanted for a module, before uniform_format makes it possible.
using FormatRule = std::function<numerics::QuantFormat(const families::OutputModule& module)>;

// One format for all modules but those to which mlx_lm's uniform conversions give a width of their
// own, at group 64.
FormatRule uniform_rule(numerics::QuantFormat format);

inline constexpr std::string_view kRecipes[] = {"mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6"};

// mixed_a_b: b bits on v_proj and down_proj of the first and last eighth of the layers and of every
// third between, and on the head; a bits elsewhere. mlx_lm's own rule, which would also narrow
// routers; uniform_plan does not. Errors: kUnsupported for a model without down_proj, where mlx_lm
// has no rule either.
Result<FormatRule> recipe_rule(const families::ModelMap& map, std::string_view recipe,
                               uint16_t group_size);

// Routers keep 8 bits at group 64, mlx_lm's rule for uniform formats. A module whose rows the group
// does not divide gets the largest smaller group that does, or stays unquantized; both are noted on
// the console. The plan predicts no errors, and its budget is what it takes. name: what the plan
// records as its formats, "4/64" or "mixed_3_6".
Result<allocate::Plan> uniform_plan(Context& context, const OpenedModel& model,
                                    const FormatRule& wanted, const std::string& name,
                                    numerics::Encoder encoder, const std::string& parity);

}  // namespace sluice::cli
