// The published greedy method against a second implementation written from its description alone.
#include "allocate/mint.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "allocate/solve.h"
#include "allocate/synthetic.h"

namespace sluice::allocate {
namespace {

using numerics::Encoder;
using numerics::QuantMode;

// What the description says, as directly as it can be written: tables of (bits, group) with loss
// and size per tensor, then one pass over sorted upgrades.
struct Oracle {
  struct Config {
    double size;
    double loss;
    size_t candidate;
  };
  struct Upgrade {
    double ratio;
    size_t tensor;
    size_t order;
  };
  std::vector<std::vector<Config>>
      tensors;  // by size; only configurations better than smaller ones
  std::vector<size_t> at;
  double used = 0;

  Oracle(const std::vector<Item>& items, double budget) {
    const int configs[8][2] = {{2, 32}, {2, 64},  {3, 64}, {4, 32},
                               {4, 64}, {4, 128}, {8, 64}, {8, 128}};
    int last = 0;
    for (const Item& item : items) last = std::max(last, item.layer);
    for (const Item& item : items) {
      std::vector<Config> list;
      const double n = static_cast<double>(item.elements);
      const double pi = item.layer == 0 ? 3 : item.layer == last ? 2 : 1;
      const bool kept = item.role == "embedding" || item.role == "head" || item.role == "router" ||
                        item.role == "norm";
      for (size_t j = 0; j < item.candidates.size(); ++j) {
        const Candidate& candidate = item.candidates[j];
        if (candidate.format.mode == QuantMode::kFloat) {
          list.push_back({2 * n, 0, j});
          continue;
        }
        if (kept || candidate.encoder != Encoder::kParity) continue;
        for (const auto& config : configs) {
          if (candidate.format.bits != config[0] || candidate.format.group_size != config[1])
            continue;
          const double nrmse =
              std::sqrt(candidate.error.squared_error / candidate.error.squared_weight);
          const double sqnr = std::min(-20 * std::log10(nrmse), candidate.worst_expert_sqnr_db);
          if (sqnr < 9.0) continue;
          list.push_back(
              {std::ceil(n * config[0] / 8) + 4 * std::ceil(n / config[1]), pi * nrmse, j});
        }
      }
      std::sort(list.begin(), list.end(),
                [](const Config& a, const Config& b) { return a.size < b.size; });
      std::vector<Config> useful;
      for (const Config& config : list)
        if (useful.empty() || config.loss < useful.back().loss) useful.push_back(config);
      tensors.push_back(useful);
      used += useful[0].size;
    }
    at.assign(items.size(), 0);
    std::vector<Upgrade> upgrades;
    for (size_t t = 0; t < tensors.size(); ++t)
      for (size_t k = 1; k < tensors[t].size(); ++k)
        upgrades.push_back({(tensors[t][k - 1].loss - tensors[t][k].loss) /
                                (tensors[t][k].size - tensors[t][k - 1].size),
                            t, k});
    std::sort(upgrades.begin(), upgrades.end(), [](const Upgrade& a, const Upgrade& b) {
      if (a.ratio != b.ratio) return a.ratio > b.ratio;
      return a.tensor != b.tensor ? a.tensor < b.tensor : a.order < b.order;
    });
    for (const Upgrade& upgrade : upgrades) {
      const std::vector<Config>& tensor = tensors[upgrade.tensor];
      size_t& now = at[upgrade.tensor];
      if (upgrade.order <= now) continue;
      const double more = tensor[upgrade.order].size - tensor[now].size;
      if (used + more > budget) continue;
      used += more;
      now = upgrade.order;
    }
  }
};

TEST(Mint, EqualsASecondImplementation) {
  for (const synthetic::ModelShape& shape :
       {synthetic::kQwen3_8B, synthetic::kQwen3_30B_A3B, synthetic::kSmolLM2_135M}) {
    for (uint64_t seed = 1; seed <= 5; ++seed) {
      const std::vector<Item> items = synthetic::model_items(shape, seed);
      const auto problem = mint_problem(items, kMintSqnrFloorDb);
      ASSERT_TRUE(problem.has_value()) << problem.error().message;
      const uint64_t least = mint_bytes_min(*problem);
      for (const double factor : {1.0, 1.01, 1.1, 1.3, 1.7, 2.5, 5.0}) {
        const uint64_t budget = static_cast<uint64_t>(static_cast<double>(least) * factor);
        const MintSolution solution = solve_mint(*problem, budget);
        const Oracle oracle(items, static_cast<double>(budget));
        EXPECT_EQ(static_cast<double>(solution.model_bytes), oracle.used);
        for (size_t i = 0; i < items.size(); ++i)
          ASSERT_EQ(solution.choice[i], oracle.tensors[i][oracle.at[i]].candidate)
              << items[i].path << " seed " << seed << " factor " << factor;
      }
    }
  }
}

TEST(Mint, ItsBytesRoundUp) {
  EXPECT_EQ(mint_model_bytes(1024, {QuantMode::kAffine, 4, 64}), 512u + 64u);
  EXPECT_EQ(mint_model_bytes(1001, {QuantMode::kAffine, 3, 64}), 376u + 64u);  // 375.4, 15.6
  EXPECT_EQ(mint_model_bytes(1001, {}), 2002u);
}

TEST(Mint, EmbeddingsHeadAndRoutersStayAt16Bits) {
  const std::vector<Item> items = synthetic::model_items(synthetic::kQwen3_30B_A3B, 2);
  const Problem problem = *mint_problem(items, kMintSqnrFloorDb);
  const MintSolution solution = solve_mint(problem, mint_bytes_min(problem));
  for (size_t i = 0; i < items.size(); ++i) {
    const Candidate& chosen = items[i].candidates[solution.choice[i]];
    const bool kept = items[i].role == "embedding" || items[i].role == "head" ||
                      items[i].role == "router" || !items[i].quantizable;
    EXPECT_EQ(chosen.format.mode == QuantMode::kFloat, kept) << items[i].path;
  }
}

// The greedy pass on its own objective is never better than the exact solver on the same problem.
TEST(Mint, ExactSolverIsNeverWorseOnTheSameProblem) {
  const std::vector<Item> items = synthetic::model_items(synthetic::kQwen3_8B, 4);
  const Problem problem = *mint_problem(items, kMintSqnrFloorDb);
  const Solver solver = *Solver::create(problem);
  for (uint64_t k = 0; k < 30; ++k) {
    const uint64_t budget = solver.bytes_min() + (solver.bytes_max() - solver.bytes_min()) / 30 * k;
    const MintSolution greedy = solve_mint(problem, budget);
    EXPECT_LE(greedy.model_bytes, budget);
    EXPECT_LE(solver.solve(budget).cost, greedy.cost * (1 + 1e-12));
  }
}

TEST(Mint, AnalysisWithoutItsCandidatesIsRefused) {
  std::vector<Item> items = synthetic::model_items(synthetic::kSmolLM2_135M, 4);
  items[2].candidates.resize(1);
  items[2].candidates[0].encoder = Encoder::kBest;
  const auto problem = mint_problem(items, kMintSqnrFloorDb);
  ASSERT_FALSE(problem.has_value());
  EXPECT_EQ(problem.error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace sluice::allocate
