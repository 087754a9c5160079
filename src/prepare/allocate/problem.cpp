#include "allocate/problem.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/checked.h"

namespace sluice::allocate {
namespace {

using numerics::Encoder;
using numerics::QuantFormat;
using numerics::QuantMode;

constexpr QuantFormat affine(uint8_t bits, uint16_t group) {
  return {QuantMode::kAffine, bits, group};
}

// The published method's candidates, first and later editions.
const std::vector<QuantFormat>& mint_formats(bool later) {
  static const std::vector<QuantFormat> v1 = {{},
                                              affine(2, 32),
                                              affine(2, 64),
                                              affine(3, 64),
                                              affine(4, 32),
                                              affine(4, 64),
                                              affine(4, 128),
                                              affine(8, 64),
                                              affine(8, 128)};
  static const std::vector<QuantFormat> v2 = {{},
                                              affine(2, 32),
                                              affine(2, 64),
                                              affine(3, 32),
                                              affine(3, 64),
                                              affine(4, 32),
                                              affine(4, 64),
                                              affine(4, 128),
                                              affine(5, 32),
                                              affine(5, 64),
                                              affine(6, 32),
                                              affine(6, 64),
                                              affine(8, 64),
                                              affine(8, 128)};
  return later ? v2 : v1;
}

// 10^(−db/10) with + × ÷ alone, so that the floor falls between the same two candidates whatever
// the machine's mathematics library.
double relative_error_at(double db) {
  if (db < -200) return std::numeric_limits<double>::infinity();
  constexpr double kLn10 = 2.302585092994046;
  const bool inverse = db > 0;
  const double decades = (inverse ? db : -db) / 10;
  double power = 1;
  double rest = decades;
  for (; rest >= 1; rest -= 1) power *= 10;
  double term = 1;
  double exponential = 1;  // e^(rest·ln 10), rest < 1
  for (int n = 1; n < 40; ++n) {
    term *= rest * kLn10 / n;
    exponential += term;
  }
  power *= exponential;
  return inverse ? 1 / power : power;
}

bool well_formed(const numerics::ErrorStats& error) {
  return std::isfinite(error.squared_error) && error.squared_error >= 0 &&
         std::isfinite(error.squared_weight) && error.squared_weight >= 0 &&
         std::isfinite(error.error_max) && error.error_max >= 0;
}

Status check_item(const Item& item) {
  const std::string name = item.tensor_name();
  if (item.candidates.empty())
    return fail(ErrorCode::kCorrupt, "{}: analysis has no candidate formats for it", name);
  if (item.candidates.size() > UINT16_MAX)
    return fail(ErrorCode::kCorrupt, "{}: {} candidate formats are more than any analysis makes",
                name, item.candidates.size());
  for (const Candidate& candidate : item.candidates) {
    if (!well_formed(candidate.error) || std::isnan(candidate.worst_expert_sqnr_db))
      return fail(ErrorCode::kCorrupt, "{}: error of candidate {} is negative or not finite", name,
                  numerics::format_text(candidate.format));
    const bool is_float = candidate.format.mode == QuantMode::kFloat;
    // What feedback makes good is known only with recorded inputs, which no analysis has.
    if (is_float != (candidate.encoder == Encoder::kCast) ||
        candidate.encoder == Encoder::kFeedback)
      return fail(ErrorCode::kCorrupt, "{}: candidate {} cannot come from encoder {}", name,
                  numerics::format_text(candidate.format),
                  numerics::encoder_name(candidate.encoder));
  }
  return {};
}

// Admissible whatever the settings when nothing else is: the least relative error, then the fewest
// bytes, then the first.
uint32_t most_exact(const Item& item) {
  size_t best = 0;
  for (size_t j = 1; j < item.candidates.size(); ++j) {
    const double error = nrmse_squared(item.candidates[j].error);
    const double least = nrmse_squared(item.candidates[best].error);
    if (error < least || (error == least && item.candidates[j].bytes < item.candidates[best].bytes))
      best = j;
  }
  return static_cast<uint32_t>(best);
}

}  // namespace

std::string_view objective_name(Objective objective) {
  switch (objective) {
    case Objective::kNrmseSquared: return "nrmse-squared";
    case Objective::kNrmseLinear: return "nrmse-linear";
  }
  return "unknown";
}

Result<Objective> parse_objective(std::string_view name) {
  for (const Objective objective : {Objective::kNrmseSquared, Objective::kNrmseLinear})
    if (name == objective_name(objective)) return objective;
  return fail(ErrorCode::kInvalidArgument,
              "objective \"{}\" is not known; choose nrmse-squared or nrmse-linear", name);
}

bool ConfigSet::allows(const QuantFormat& format) const {
  return formats.empty() || std::binary_search(formats.begin(), formats.end(), format);
}

Result<ConfigSet> parse_configs(std::string_view text) {
  ConfigSet set;
  set.name = std::string(text);
  if (text == "all") return set;
  if (text == "mint-v1" || text == "mint-v2") {
    set.formats = mint_formats(text == "mint-v2");
    std::sort(set.formats.begin(), set.formats.end());
    return set;
  }
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    auto format = numerics::parse_format(text.substr(begin, end - begin));
    if (!format)
      return fail(ErrorCode::kInvalidArgument,
                  "configs \"{}\": {}; give all, mint-v1, mint-v2 or a list such as "
                  "4/64,8/64,16-bit",
                  text, format.error().message);
    set.formats.push_back(*format);
    begin = end + 1;
  }
  std::sort(set.formats.begin(), set.formats.end());
  set.formats.erase(std::unique(set.formats.begin(), set.formats.end()), set.formats.end());
  return set;
}

const Option* Problem::find(size_t item, uint32_t candidate) const {
  for (const Option& option : options_of(item))
    if (option.candidate == candidate) return &option;
  return nullptr;
}

double candidate_cost(Objective objective, double alpha, const numerics::ErrorStats& error) {
  if (alpha == 0) return 0;
  const double squared = nrmse_squared(error);
  return alpha * (objective == Objective::kNrmseSquared ? squared : std::sqrt(squared));
}

bool passes_floor(const Item& item, const Candidate& candidate, const ProblemSettings& settings) {
  if (candidate.format.mode == QuantMode::kFloat) return true;
  const Candidate* judged = &candidate;
  for (const Candidate& other : item.candidates)
    if (other.format == candidate.format && other.encoder == Encoder::kParity) judged = &other;
  if (candidate.encoder == Encoder::kLossless || settings.floor_by_encoder) judged = &candidate;
  return nrmse_squared(judged->error) <= relative_error_at(settings.sqnr_floor_db) &&
         judged->worst_expert_sqnr_db >= settings.sqnr_floor_db;
}

Result<Problem> build_problem(std::span<const Item> items, std::span<const double> weights,
                              const ProblemSettings& settings) {
  SLUICE_CHECK(items.size() == weights.size());
  if (std::isnan(settings.sqnr_floor_db) || settings.sqnr_floor_db > 200)
    return fail(ErrorCode::kInvalidArgument, "SQNR floor {} dB cannot be met; give at most 200",
                settings.sqnr_floor_db);
  if (items.empty()) return fail(ErrorCode::kCorrupt, "analysis has no modules");
  if (items.size() > UINT32_MAX / 64)
    return fail(ErrorCode::kCorrupt, "analysis has {} modules, more than any model", items.size());

  Problem problem;
  problem.objective = settings.objective;
  problem.first.reserve(items.size() + 1);
  problem.first.push_back(0);
  problem.alpha.reserve(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    const Item& item = items[i];
    SLUICE_TRY(check_item(item));
    if (!(weights[i] >= 0) || !std::isfinite(weights[i]))
      return fail(ErrorCode::kInvalidArgument, "{}: sensitivity {} is not a weight",
                  item.tensor_name(), weights[i]);
    const double alpha = item.quantizable ? weights[i] : 0;
    problem.alpha.push_back(alpha);
    const auto sum = checked_add(problem.elements, item.elements);
    if (!sum) return fail(ErrorCode::kCorrupt, "{}: element counts overflow", item.tensor_name());
    problem.elements = *sum;

    const auto add = [&](size_t j) {
      const Candidate& candidate = item.candidates[j];
      const double cost = candidate_cost(settings.objective, alpha, candidate.error);
      if (!std::isfinite(cost)) return;
      problem.options.push_back({candidate.bytes, cost, static_cast<uint32_t>(j)});
    };
    for (size_t j = 0; j < item.candidates.size(); ++j) {
      const Candidate& candidate = item.candidates[j];
      const bool is_float = candidate.format.mode == QuantMode::kFloat;
      if (item.quantizable) {
        if (!settings.configs.allows(candidate.format)) continue;
        if (candidate.encoder == Encoder::kBest && !settings.allow_best) continue;
        if (!is_float && candidate.format.bits < item.bits_floor) continue;
        // A floor means that width of affine: eight bits of a float err several times as much.
        if (is_fp(candidate.format) && item.bits_floor > 0) continue;
        if (!passes_floor(item, candidate, settings)) continue;
      } else if (!is_float) {
        continue;
      }
      add(j);
    }
    if (problem.options.size() == problem.first.back()) add(most_exact(item));
    if (problem.options.size() == problem.first.back())
      return fail(ErrorCode::kCorrupt, "{}: every candidate format has an infinite error",
                  item.tensor_name());
    problem.first.push_back(static_cast<uint32_t>(problem.options.size()));
  }
  return problem;
}

}  // namespace sluice::allocate
