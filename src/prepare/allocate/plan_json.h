// The plan file's content as JSON, shared by the file form and the plan's own digest; not for other
// modules.
#pragma once

#include "allocate/plan.h"
#include "base/json.h"

namespace sluice::allocate {

// Everything in the file except its digest.
Json plan_content_to_json(const PlanData& data);

}  // namespace sluice::allocate
