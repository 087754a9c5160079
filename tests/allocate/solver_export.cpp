// Prints middling knapsack problems with the exact solver's answers as JSON lines, for
// solver_reference_test.py to solve again with an independent solver.
#include <cstdio>

#include "allocate/solve.h"
#include "allocate/synthetic.h"
#include "base/json.h"

int main() {
  using namespace sluice;
  using namespace sluice::allocate;
  synthetic::Random random(20260917);
  for (int round = 0; round < 12; ++round) {
    Problem problem =
        synthetic::random_problem(random, 200, 10, static_cast<synthetic::Shape>(round % 3));
    const Solver solver = *Solver::create(problem);
    const uint64_t span = solver.bytes_max() - solver.bytes_min();
    const uint64_t budget = solver.bytes_min() + span * (1 + random.below(8)) / 10;
    const Solution solution = solver.solve(budget);
    Json items = Json::array();
    for (size_t i = 0; i < problem.item_count(); ++i) {
      Json options = Json::array();
      for (const Option& option : problem.options_of(i))
        options.push_back(Json::array({option.bytes, option.cost}));
      items.push_back(std::move(options));
    }
    const Json line = {{"items", std::move(items)},
                       {"budget", budget},
                       {"choice", solution.choice},
                       {"cost", solution.cost},
                       {"bound", solution.bound}};
    std::puts(dump_json(line).c_str());
  }
}
