#include "evaluate/sensitivity.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <numeric>

#include "base/clock.h"
#include "base/digest.h"
#include "evaluate/score.h"
#include "kernels/layer_ops.h"

namespace sluice::evaluate {
namespace {

constexpr size_t kGroupColumns = 64;  // whose RMS noise is a part of, and whose signs are one hash
constexpr size_t kBandCounts[] = {4, 2, 1};  // of layers, in grouping

// SplitMix64's finalizer (Steele, Lea and Flood 2014).
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}
constexpr uint64_t kStep = 0x9e3779b97f4a7c15u;

// Modules that are perturbed together.
struct Group {
  std::vector<uint32_t> members;
  double kl = 0;  // sum over the scored tokens
};

// Every module for itself, or by role and as many bands of layers as the passes allow.
std::vector<Group> first_groups(std::span<const SensitivityModule> modules, size_t bands) {
  std::vector<Group> groups;
  if (bands == 0) {
    for (uint32_t i = 0; i < modules.size(); ++i) groups.push_back({{i}});
    return groups;
  }
  int layers = 1;
  for (const SensitivityModule& module : modules) layers = std::max(layers, module.layer + 1);
  std::map<std::pair<std::string, size_t>, size_t> found;
  for (uint32_t i = 0; i < modules.size(); ++i) {
    const auto layer = static_cast<size_t>(std::max(modules[i].layer, 0));
    const auto [at, added] = found.try_emplace(
        {modules[i].role, layer * bands / static_cast<size_t>(layers)}, groups.size());
    if (added) groups.emplace_back();
    groups[at->second].members.push_back(i);
  }
  return groups;
}

std::vector<Group> choose_groups(std::span<const SensitivityModule> modules, size_t passes_max) {
  std::vector<Group> groups = first_groups(modules, 0);
  for (const size_t bands : kBandCounts) {
    if (groups.size() <= passes_max) break;
    groups = first_groups(modules, bands);
  }
  return groups;
}

// Halves of the groups that lost most, as far as passes are left; they take the groups' places at
// the end, unmeasured. A group is one half's members and the other's, by layer.
std::vector<Group> split_largest(std::vector<Group>& groups, size_t passes_left) {
  std::vector<size_t> order;
  for (size_t i = 0; i < groups.size(); ++i)
    if (groups[i].members.size() > 1) order.push_back(i);
  std::ranges::stable_sort(order, [&](size_t a, size_t b) { return groups[a].kl > groups[b].kl; });
  // Half of them at most: what is learned of the first halves decides about the next.
  order.resize(std::min({order.size(), (order.size() + 1) / 2, passes_left / 2}));
  std::vector<Group> halves;
  for (const size_t i : order) {
    const auto& members = groups[i].members;
    const auto middle = members.begin() + static_cast<ptrdiff_t>((members.size() + 1) / 2);
    halves.push_back({{members.begin(), middle}});
    halves.push_back({{middle, members.end()}});
  }
  std::ranges::sort(order, std::greater());
  for (const size_t i : order) groups.erase(groups.begin() + static_cast<ptrdiff_t>(i));
  return halves;
}

// What a module's noise does to a window's logits.
class WindowMeter {
 public:
  WindowMeter(runtime::Engine& engine, SimdLevel simd, const CancelToken* cancel)
      : engine_(engine),
        session_(engine.new_session()),
        ops_(kernels::layer_ops(simd)),
        cancel_(cancel),
        vocabulary_(engine.info().vocabulary),
        exponentials_(vocabulary_) {}

  // The model as it is.
  Status set_reference(const Window& window) {
    reference_.clear();
    return run_window(
        engine_, session_, window,
        [&](size_t, uint32_t, std::span<const float> log_probs) -> Status {
          reference_.insert(reference_.end(), log_probs.begin(), log_probs.end());
          return {};
        },
        cancel_);
  }

  // Sum over the window's scored tokens of the divergence from the reference.
  Result<double> divergence(const Window& window,
                            std::span<const runtime::Perturbation> perturbations) {
    SLUICE_TRY(engine_.perturb(perturbations));
    session_.rewind(0);
    const size_t scored = window.ids.size() - window.first_scored;
    const runtime::Feed feed{&session_, std::span(window.ids).first(window.ids.size() - 1), scored};
    double sum = 0;
    size_t row = 0;
    const Status run = engine_.step(
        {&feed, 1},
        [&](size_t, size_t, std::span<const float> logits) {
          sum +=
              row_divergence(std::span(reference_).subspan(row * vocabulary_, vocabulary_), logits);
          ++row;
        },
        cancel_);
    SLUICE_TRY(engine_.perturb({}));
    SLUICE_TRY(run);
    return sum;
  }

 private:
  // Σ p·(log p − log q). Each term is small where the two are close, so that what exponentials and
  // their sums are off by does not show.
  double row_divergence(std::span<const float> log_p, std::span<const float> logits) {
    const float top = logits[ops_.argmax(logits)];
    for (size_t i = 0; i < logits.size(); ++i) exponentials_[i] = logits[i] - top;
    ops_.exp(exponentials_, exponentials_);
    double total = 0;
    for (const float value : exponentials_) total += static_cast<double>(value);
    const double log_total = static_cast<double>(top) + std::log(total);
    ops_.exp(log_p, exponentials_);
    double sum = 0;
    for (size_t i = 0; i < logits.size(); ++i)
      sum += static_cast<double>(exponentials_[i]) *
             (static_cast<double>(log_p[i]) - (static_cast<double>(logits[i]) - log_total));
    return sum;
  }

  runtime::Engine& engine_;
  runtime::Session session_;
  const kernels::LayerOps& ops_;
  const CancelToken* cancel_;
  const size_t vocabulary_;
  std::vector<float> reference_, exponentials_;
};

// One measurement, from its groups to what its modules are worth.
class Measurement {
 public:
  Measurement(runtime::Engine& engine, std::span<const Window> windows,
              std::span<const SensitivityModule> modules, const SensitivityOptions& options,
              FinishedWork& finished, Progress& progress, const CancelToken* cancel)
      : windows_(windows),
        modules_(modules),
        options_(options),
        finished_(finished),
        progress_(progress),
        meter_(engine, options.simd, cancel) {
    for (const Window& window : windows) tokens_ += window.ids.size() - window.first_scored;
  }

  Result<Sensitivity> run(const std::function<void(const SensitivityCost&)>& on_cost) {
    for (const Json& record : finished_.pieces()) SLUICE_TRY(read_record(record));
    SLUICE_TRY(choose_passes());
    std::vector<Group> todo = choose_groups(modules_, passes_), done;
    on_cost({modules_.size(), todo.size(), passes_,
             std::min(passes_, done_.size() / windows_.size()), seconds_left()});
    progress_.begin("measure", passes_ * tokens_);
    size_t passes = 0;
    for (uint64_t round = 0; !todo.empty(); ++round) {
      SLUICE_TRY(measure(round, todo));
      passes += todo.size();
      std::ranges::move(todo, std::back_inserter(done));
      todo = split_largest(done, passes_ - passes);
    }
    progress_.end();
    return result(done, passes);
  }

 private:
  struct Key {
    uint64_t round = 0, window = 0, group = 0;
    auto operator<=>(const Key&) const = default;
  };

  // Lines of other kinds are somebody else's.
  Status read_record(const Json& record) {
    constexpr std::string_view kLabel = "journal of sensitivities";
    if (json_find(record, "passes") != nullptr) {
      SLUICE_ASSIGN(const int64_t passes, json_int(record, "passes", 1, INT32_MAX, kLabel));
      planned_passes_ = static_cast<size_t>(passes);
    }
    if (json_find(record, "kl") == nullptr) return {};
    SLUICE_ASSIGN(const double kl, json_number(record, "kl", kLabel));
    Key key;
    for (const auto& [name, to] : {std::pair{"round", &key.round}, std::pair{"window", &key.window},
                                   std::pair{"group", &key.group}}) {
      SLUICE_ASSIGN(const int64_t value, json_int(record, name, 0, INT32_MAX, kLabel));
      *to = static_cast<uint64_t>(value);
    }
    done_[key] = kl;
    return {};
  }

  // A timed pass of the first window tells how many there is time for; once known it stays, so that
  // a slower second run of the same measurement finds the same.
  Status choose_passes() {
    const Stopwatch watch;
    SLUICE_TRY(meter_.set_reference(windows_.front()));
    pass_seconds_ = watch.seconds() * static_cast<double>(tokens_) /
                    static_cast<double>(windows_.front().ids.size() - 1);
    passes_ = planned_passes_;
    if (passes_ != 0) return {};
    passes_ = modules_.size();
    const double fitting = options_.seconds_max / pass_seconds_;
    if (options_.seconds_max > 0 && fitting < static_cast<double>(passes_))
      passes_ = static_cast<size_t>(fitting);
    const size_t least = first_groups(modules_, 1).size();
    if (passes_ < least)
      return fail(
          ErrorCode::kInvalidArgument,
          "measuring sensitivities takes at least {} passes of {:.1f} s, one for each role; "
          "allow {:.0f} s, or fewer tokens",
          least, pass_seconds_, std::ceil(1.1 * static_cast<double>(least) * pass_seconds_));
    return finished_.add({{"passes", passes_}});
  }

  double seconds_left() const {
    const double done = static_cast<double>(done_.size()) / static_cast<double>(windows_.size());
    return pass_seconds_ * (static_cast<double>(passes_) - done);
  }

  // Window by window, so that the reference is computed once for all groups.
  Status measure(uint64_t round, std::vector<Group>& groups) {
    for (size_t window = 0; window < windows_.size(); ++window) {
      const size_t scored = windows_[window].ids.size() - windows_[window].first_scored;
      bool has_reference = false;
      for (size_t i = 0; i < groups.size(); ++i) {
        const Key key{round, window, i};
        if (!done_.contains(key)) {
          if (!has_reference) SLUICE_TRY(meter_.set_reference(windows_[window]));
          has_reference = true;
          SLUICE_ASSIGN(const double kl, meter_.divergence(windows_[window], noise_of(groups[i])));
          SLUICE_TRY(
              finished_.add({{"round", round}, {"window", window}, {"group", i}, {"kl", kl}}));
          done_[key] = kl;
        }
        groups[i].kl += done_[key];
        progress_.advance(scored);
      }
    }
    return {};
  }

  std::vector<runtime::Perturbation> noise_of(const Group& group) const {
    std::vector<runtime::Perturbation> perturbations;
    for (const uint32_t member : group.members) {
      const std::string& name = modules_[member].name;
      perturbations.push_back({name, sign_noise(name, options_.noise, options_.seed)});
    }
    return perturbations;
  }

  Sensitivity result(const std::vector<Group>& groups, size_t passes) const {
    Sensitivity found;
    found.passes = passes;
    found.tokens = tokens_;
    found.modules.resize(modules_.size());
    const double unit = 1 / (options_.noise * options_.noise * static_cast<double>(tokens_));
    for (const Group& group : groups)
      for (const uint32_t member : group.members) {
        const auto together = group.members.size();
        // Rounding can make a module that changes nothing come out below 0.
        const double alpha = std::max(0.0, group.kl * unit / static_cast<double>(together));
        found.modules[member] = {modules_[member].name, modules_[member].role, alpha, together};
      }
    return found;
  }

  const std::span<const Window> windows_;
  const std::span<const SensitivityModule> modules_;
  const SensitivityOptions options_;
  FinishedWork& finished_;
  Progress& progress_;
  WindowMeter meter_;
  size_t tokens_ = 0, passes_ = 0, planned_passes_ = 0;
  double pass_seconds_ = 0;
  std::map<Key, double> done_;
};

}  // namespace

runtime::RowChange sign_noise(std::string_view name, double noise, uint64_t seed) {
  const uint64_t stream = mix(digest_of(name).low + (seed + 1) * kStep);
  return [stream, noise](uint64_t row, std::span<const float> weights, std::span<float> delta) {
    const uint64_t row_stream = mix(stream + (row + 1) * kStep);
    for (size_t first = 0; first < weights.size(); first += kGroupColumns) {
      const auto group = weights.subspan(first, std::min(kGroupColumns, weights.size() - first));
      double squares = 0;
      for (const float value : group)
        squares += static_cast<double>(value) * static_cast<double>(value);
      const auto size =
          static_cast<float>(noise * std::sqrt(squares / static_cast<double>(group.size())));
      const uint64_t signs = mix(row_stream + (first + 1) * kStep);
      for (size_t i = 0; i < group.size(); ++i) {
        const auto sign = static_cast<uint32_t>((signs >> i) & 1u) << 31;
        delta[first + i] = std::bit_cast<float>(std::bit_cast<uint32_t>(size) ^ sign);
      }
    }
  };
}

Result<Sensitivity> measure_sensitivity(runtime::Engine& engine, std::span<const Window> windows,
                                        std::span<const SensitivityModule> modules,
                                        const SensitivityOptions& options, FinishedWork& finished,
                                        const std::function<void(const SensitivityCost&)>& on_cost,
                                        Progress& progress, const CancelToken* cancel) {
  SLUICE_CHECK(!windows.empty() && !modules.empty() && options.noise > 0);
  Measurement measurement(engine, windows, modules, options, finished, progress, cancel);
  return measurement.run(on_cost);
}

std::vector<SensitivityModule> measurable(runtime::Engine& engine,
                                          std::span<const SensitivityModule> modules) {
  std::vector<SensitivityModule> known;
  for (const SensitivityModule& module : modules)
    if (engine.has_matrix(module.name)) known.push_back(module);
  return known;
}

std::string sensitivity_table(const Sensitivity& measured, const Json& measurement) {
  struct Sum {
    double alpha = 0;
    size_t count = 0;
    double mean() const { return count > 0 ? alpha / static_cast<double>(count) : 0; }
  };
  std::map<std::string, Sum> by_role;
  Sum all;
  for (const MeasuredModule& module : measured.modules)
    for (Sum* sum : {&by_role[module.role], &all}) {
      sum->alpha += module.alpha;
      ++sum->count;
    }
  Json modules = Json::object(), roles = Json::object();
  for (const MeasuredModule& module : measured.modules)
    modules[module.name] = std::max(module.alpha, kAlphaShareMin * all.mean());
  for (const auto& [role, sum] : by_role) roles[role] = {{"alpha", sum.mean()}};
  Json described = measurement;
  described.update({{"passes", measured.passes}, {"scored_tokens", measured.tokens}});
  return dump_json({{"version", 1},
                    {"name", "measured-1"},
                    {"unit", "nats"},
                    {"measurement", std::move(described)},
                    {"default", {{"alpha", all.mean()}}},
                    {"roles", std::move(roles)},
                    {"modules", std::move(modules)}},
                   1) +
         "\n";
}

}  // namespace sluice::evaluate
