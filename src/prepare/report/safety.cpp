#include "report/safety.h"

#include <algorithm>
#include <functional>
#include <iterator>

#include "allocate/safety.h"
#include "report/html.h"

namespace sluice::report {
namespace {

using allocate::NearFloor;
using allocate::WeakExpert;

constexpr size_t kRowsEach = 12;

// The first entries as sentences, then a line about the others.
template <class Entry, class Sentence>
void add(std::span<const Entry> entries, size_t each, std::string_view what, Sentence sentence,
         std::vector<Warning>& warnings) {
  for (const Entry& entry : entries.first(std::min(each, entries.size())))
    warnings.push_back({entry.tensor, sentence(entry)});
  if (entries.size() > each)
    warnings.push_back({"", fmt::format("and {} more {}", entries.size() - each, what)});
}

}  // namespace

std::vector<Warning> plan_warnings(const allocate::Plan& plan, size_t each) {
  const allocate::SafetyReport safety = allocate::safety_report(plan);
  std::vector<Warning> warnings;
  add(
      std::span<const NearFloor>(safety.near_floor), each, "modules near the floor",
      [&](const NearFloor& module) {
        const double above = module.sqnr_db - safety.floor_db;
        return above < 0 ? fmt::format("{}, below the floor of {:g} dB", db_text(module.sqnr_db),
                                       safety.floor_db)
                         : fmt::format("{}, {:.2f} dB above the floor of {:g} dB",
                                       db_text(module.sqnr_db), above, safety.floor_db);
      },
      warnings);
  add(
      std::span<const WeakExpert>(safety.weak_experts), each, "stacks with such an expert",
      [](const WeakExpert& expert) {
        return fmt::format("expert {} at {}, {:.2f} dB below its stack", expert.expert,
                           db_text(expert.sqnr_db), expert.stack_sqnr_db - expert.sqnr_db);
      },
      warnings);
  return warnings;
}

std::vector<Warning> error_warnings(std::span<const ConcentratedError> errors, size_t each) {
  std::vector<ConcentratedError> sorted(errors.begin(), errors.end());
  std::ranges::stable_sort(sorted, std::ranges::greater(), [](const ConcentratedError& error) {
    return error.share / error.white_share;
  });
  std::vector<Warning> warnings;
  add(
      std::span<const ConcentratedError>(sorted), each, "modules with such errors",
      [](const ConcentratedError& error) {
        return fmt::format("{}{:.1f} % of the error in 8 directions, of noise {:.1f} %",
                           error.expert ? fmt::format("expert {}: ", *error.expert) : std::string(),
                           100 * error.share, 100 * error.white_share);
      },
      warnings);
  return warnings;
}

std::string safe_text(const allocate::Plan& plan, bool directions) {
  return fmt::format(
      "No module within {:g} dB of the floor of {:g} dB, no expert {:g} dB below its stack{}.",
      allocate::kFloorMarginDb, allocate::safety_report(plan).floor_db, allocate::kExpertGapDb,
      directions ? ", no error that lies in a few directions" : "");
}

std::string safety_section(const ReportInput& input) {
  if (!input.plan) return {};
  const bool directions = input.verification && input.verification->directions_measured > 0;
  std::vector<Warning> warnings = plan_warnings(*input.plan, kRowsEach);
  if (directions)
    std::ranges::move(error_warnings(input.verification->concentrated, kRowsEach),
                      std::back_inserter(warnings));
  if (warnings.empty())
    return fmt::format(R"(<p class="verdict">{}</p>)", safe_text(*input.plan, directions));
  std::string out =
      R"(<div class="scroll"><table class="list findings"><thead><tr><th scope="col">module</th><th scope="col">what</th></tr></thead><tbody>)";
  for (const Warning& warning : warnings)
    put(out, "<tr><td>{}</td><td>{}</td></tr>",
        warning.subject.empty() ? "…" : name_html(warning.subject), escape(warning.message));
  return out + "</tbody></table></div>";
}

}  // namespace sluice::report
