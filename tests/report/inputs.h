// Reports about synthetic models, for the tests of the page and of the curve.
#pragma once

#include <string_view>

#include "allocate/synthetic.h"
#include "report/input.h"

namespace sluice::report::test {

// How often what occurs in text.
inline size_t count(std::string_view text, std::string_view what) {
  size_t found = 0;
  for (size_t at = text.find(what); at != std::string_view::npos; at = text.find(what, at + 1))
    ++found;
  return found;
}

// A plan at bits per weight over items, with everything a page can show but times.
inline ReportInput input_of(std::vector<allocate::Item> items, double bits = 5) {
  allocate::PlanRequest request;
  request.target = allocate::BitsTarget{bits};
  request.sensitivity = allocate::builtin_sensitivity();
  request.origin.family = "llama";
  request.origin.dtype = "bfloat16";
  const allocate::ExactSize exact = [&](std::span<const uint32_t> choice) -> Result<uint64_t> {
    uint64_t bytes = 16'384;
    for (size_t i = 0; i < items.size(); ++i) bytes += items[i].candidates[choice[i]].bytes;
    return bytes;
  };
  ReportInput input;
  input.name = "synthetic";
  input.tool = "sluice test";
  input.plan = allocate::make_plan(items, request, exact).value();
  input.family = input.plan->data().family;
  input.dtype = input.plan->data().dtype;
  input.uniform = input.plan->data().uniform;
  input.curve = allocate::budget_curve(items, {}, request.sensitivity, 50).value();
  input.items = std::move(items);
  input.source_bytes = 2 * input.plan->data().elements;
  Verification verification;
  verification.passed = true;
  verification.modules = verification.reencoded_modules = input.items.size();
  verification.tensors = 3 * input.items.size();
  verification.shards = 1;
  input.verification = verification;
  input.origin = {{"plan digest", input.plan->digest().hex()}};
  return input;
}

inline ReportInput dense_input() {
  return input_of(allocate::synthetic::model_items(allocate::synthetic::kSmolLM2_135M, 3));
}

inline ReportInput expert_input() {
  allocate::synthetic::ModelShape shape = allocate::synthetic::kQwen3_30B_A3B;
  shape.layers = 6;
  return input_of(allocate::synthetic::model_items(shape, 3));
}

}  // namespace sluice::report::test
