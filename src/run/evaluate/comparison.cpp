#include "evaluate/comparison.h"

#include <algorithm>
#include <cmath>

namespace sluice::evaluate {
namespace {

constexpr int64_t kTokensMax = int64_t{1} << 40;

std::unexpected<Error> no_window(std::string_view label, size_t index) {
  return fail(ErrorCode::kCorrupt,
              "{}: window {} is no list of tokens, agreed, nats of model and reference, divergence",
              label, index);
}

Result<ComparedWindow> parse_window(const Json& json, std::string_view label, size_t index) {
  if (!json.is_array() || json.size() != 5 || !json[0].is_number_integer() ||
      !json[1].is_number_integer() ||
      !std::all_of(json.begin() + 2, json.end(), [](const Json& part) { return part.is_number(); }))
    return no_window(label, index);
  const auto tokens = json[0].get<int64_t>(), agreed = json[1].get<int64_t>();
  if (tokens < 1 || tokens > kTokensMax || agreed < 0 || agreed > tokens)
    return no_window(label, index);
  const ComparedWindow window{static_cast<size_t>(tokens), static_cast<size_t>(agreed),
                              json[2].get<double>(), json[3].get<double>(), json[4].get<double>()};
  if (!(window.model_nll >= 0 && window.reference_nll >= 0 && window.kl >= 0))
    return no_window(label, index);
  return window;
}

std::vector<WindowScore> scores(std::span<const ComparedWindow> windows,
                                double ComparedWindow::* sum) {
  std::vector<WindowScore> found;
  for (const ComparedWindow& window : windows) found.push_back({window.*sum, window.tokens});
  return found;
}

Estimate difference(std::span<const ComparedWindow> first, std::span<const ComparedWindow> second,
                    double ComparedWindow::* sum) {
  std::vector<WindowScore> found;
  for (size_t i = 0; i < first.size(); ++i)
    found.push_back({first[i].*sum - second[i].*sum, first[i].tokens});
  return mean_over_tokens(found);
}

}  // namespace

Comparison summarize_comparison(std::vector<ComparedWindow> windows, const KlSpread& spread) {
  SLUICE_CHECK(!windows.empty());
  Comparison result;
  result.spread = spread;
  result.model = summarize(scores(windows, &ComparedWindow::model_nll));
  result.reference = summarize(scores(windows, &ComparedWindow::reference_nll));
  result.kl = mean_over_tokens(scores(windows, &ComparedWindow::kl));
  size_t agreed = 0;
  for (const ComparedWindow& window : windows) agreed += window.agreed;
  result.agreement = proportion(agreed, result.model.tokens);
  result.windows = std::move(windows);
  return result;
}

PairedDifference paired_difference(std::span<const ComparedWindow> first,
                                   std::span<const ComparedWindow> second) {
  SLUICE_CHECK(!first.empty() && std::ranges::equal(first, second, {}, &ComparedWindow::tokens,
                                                    &ComparedWindow::tokens));
  return {difference(first, second, &ComparedWindow::kl),
          difference(first, second, &ComparedWindow::model_nll)};
}

Json comparison_json(const Comparison& comparison) {
  Json windows = Json::array();
  for (const ComparedWindow& window : comparison.windows)
    windows.push_back(Json::array(
        {window.tokens, window.agreed, window.model_nll, window.reference_nll, window.kl}));
  return {{"windows", std::move(windows)},
          {"kl_median", comparison.spread.median},
          {"kl_p99", comparison.spread.p99},
          {"kl_max", comparison.spread.max}};
}

Result<Comparison> parse_comparison(const Json& json, std::string_view label) {
  SLUICE_ASSIGN(const Json* list, json_array(json, "windows", label));
  if (list->empty()) return fail(ErrorCode::kCorrupt, "{}: no windows", label);
  std::vector<ComparedWindow> windows;
  for (size_t index = 0; index < list->size(); ++index) {
    SLUICE_ASSIGN(const ComparedWindow window, parse_window((*list)[index], label, index));
    windows.push_back(window);
  }
  KlSpread spread;
  SLUICE_ASSIGN(spread.median, json_number(json, "kl_median", label));
  SLUICE_ASSIGN(spread.p99, json_number(json, "kl_p99", label));
  SLUICE_ASSIGN(spread.max, json_number(json, "kl_max", label));
  return summarize_comparison(std::move(windows), spread);
}

}  // namespace sluice::evaluate
