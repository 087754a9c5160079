// Plan files over arbitrary bytes. The digest is mended first, or nothing would get past it; what
// is then accepted must be written back as the same plan.
#include <string>
#include <string_view>

#include "allocate/plan.h"
#include "allocation_bound.h"
#include "base/json.h"

namespace {

// The digest that a refusal says it found, or nothing.
std::string expected_digest(const std::string& message) {
  constexpr std::string_view kMismatch = "fuzz: content does not match its digest";
  constexpr std::string_view kFound = ", found ";
  const size_t found = message.find(kFound);
  if (!message.starts_with(kMismatch) || found == std::string::npos) return {};
  return message.substr(found + kFound.size(), 32);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const sluice::fuzz::AllocationBound bound(size);
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  auto plan = sluice::allocate::plan_from_json(text, "fuzz");
  if (!plan) {
    const std::string digest = expected_digest(plan.error().message);
    if (digest.empty()) return 0;
    auto json = sluice::parse_json(text, "fuzz");
    SLUICE_CHECK(json.has_value());
    (*json)["digest"] = digest;
    plan = sluice::allocate::plan_from_json(sluice::dump_json(*json), "fuzz");
    SLUICE_CHECK(plan.has_value());
  }
  SLUICE_CHECK(plan->data().exact_bytes <= plan->data().budget_bytes);
  const auto again = sluice::allocate::plan_from_json(plan_to_json(*plan), "again");
  SLUICE_CHECK(again.has_value() && *again == *plan && again->digest() == plan->digest());
  return 0;
}
