// How much the output of a model changes when a weight of it is inexact: noise of known size is
// added to one module at a time, and the KL divergence from the model without it is read over a
// text. By the linearity theorem (HIGGS, 2024) it grows with the square of the noise, and modules
// add up: alpha = KL / noise² serves for errors of any size that a plan will choose.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "base/error.h"
#include "base/log.h"
#include "evaluate/finished_work.h"
#include "evaluate/windows.h"
#include "runtime/engine.h"

namespace sluice::evaluate {

// A weight as the engine names it.
struct SensitivityModule {
  std::string name;
  std::string role;
  int layer = -1;  // −1 outside layers
};

// Of the RMS of each group of weights: about what four bits do, so that a plan's own errors lie
// around it. docs/allocation.md#measured-sensitivities has what other sizes find.
inline constexpr double kNoise = 0.1;

struct SensitivityOptions {
  double noise = kNoise;
  uint64_t seed = 1;
  // Where a pass for every module takes longer, modules of one role and depth share one.
  double seconds_max = 0;  // 0: no limit
  SimdLevel simd = SimdLevel::kScalar;
};

// Before measuring: how often the text will go through the model, and how long that takes by the
// one pass that was timed.
struct SensitivityCost {
  size_t modules = 0, groups_first = 0;
  size_t passes = 0, passes_done = 0;  // those that an earlier run finished
  double seconds = 0;                  // of the others
};

struct MeasuredModule {
  std::string name, role;
  double alpha = 0;     // nats for each unit of NRMSE²
  size_t together = 1;  // modules that were measured as one, itself included
  bool operator==(const MeasuredModule&) const = default;
};

struct Sensitivity {
  std::vector<MeasuredModule> modules;  // in the order asked for
  size_t passes = 0, tokens = 0;        // tokens: scored in each pass
};

// Over the windows' tokens that count. The engine should compute in f32 throughout, or what is
// rounded otherwise beside the noise is measured with it. Results do not depend on threads, memory
// limits or interruptions; how many passes there are, which a time limit decides by the first run's
// speed, is kept in the journal. Memory: a window's logits.
// Requires: windows and modules, all of them measurable(). Errors: kInvalidArgument when not even
// one pass for each role fits the time; the engine's; the journal's.
Result<Sensitivity> measure_sensitivity(runtime::Engine& engine, std::span<const Window> windows,
                                        std::span<const SensitivityModule> modules,
                                        const SensitivityOptions& options, FinishedWork& finished,
                                        const std::function<void(const SensitivityCost&)>& on_cost,
                                        Progress& progress, const CancelToken* cancel);

// Those that the engine has under these names.
std::vector<SensitivityModule> measurable(runtime::Engine& engine,
                                          std::span<const SensitivityModule> modules);

// The noise: a sign for each column, times `noise` times the RMS of the 64 columns around it, so
// that the module's NRMSE is `noise` exactly. A function of name, seed and row.
runtime::RowChange sign_noise(std::string_view name, double noise, uint64_t seed);

// No module is taken to matter less than this part of the mean: a few thousand tokens do not show
// that one never does.
inline constexpr double kAlphaShareMin = 0.01;

// As a table that plans read: docs/formats.md#sensitivity-table. measurement: what it belongs to,
// as it should stand there. Roles' means stand for modules that were not measured.
std::string sensitivity_table(const Sensitivity& measured, const Json& measurement);

}  // namespace sluice::evaluate
