// Configurations over the tensors of tiny models: the input's first byte picks a model, the rest is
// JSON whose keys replace the model's own (or, behind a '!', its whole configuration). A map that
// is accepted accounts for every row of every module.
#include <set>
#include <string>
#include <string_view>

#include "allocation_bound.h"
#include "families/fake_checkpoint.h"
#include "families/recipe.h"

namespace {

using namespace sluice;

std::string_view model_type(uint8_t number) {
  constexpr std::string_view kTypes[] = {"llama", "mistral", "qwen2", "qwen3", "qwen3_moe"};
  return kTypes[number % std::size(kTypes)];
}

// Checkpoints are built once, where they stay: their index points into them. Only the configuration
// changes from call to call.
io::Checkpoint& checkpoint_of(uint8_t number) {
  static std::map<std::string, std::shared_ptr<io::Checkpoint>, std::less<>> all;
  const std::string type(model_type(number));
  auto& checkpoint = all[type];
  if (checkpoint == nullptr)
    checkpoint = std::const_pointer_cast<io::Checkpoint>(families::tiny_hf(type).build());
  return *checkpoint;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  io::Checkpoint& checkpoint = checkpoint_of(data[0]);
  const Json own = families::tiny_config(std::string(model_type(data[0])));
  std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const fuzz::AllocationBound bound(size);
  const bool whole = text.starts_with('!');
  if (whole) text.remove_prefix(1);
  const auto parsed = parse_json(text, "fuzz");
  if (!parsed) return 0;
  if (!whole && !parsed->is_object()) return 0;
  checkpoint.config = whole ? *parsed : own;
  if (!whole) checkpoint.config.update(*parsed);
  const auto map = families::map_model(checkpoint, "");
  checkpoint.config = Json();
  if (!map) {
    SLUICE_CHECK(!map.error().message.empty());
    return 0;
  }
  std::set<std::string> names;
  for (const families::OutputModule& module : map->modules) {
    SLUICE_CHECK(names.insert(module.tensor_name()).second);
    std::vector<families::RowRun> runs;
    append_row_runs(module.recipe, 0, module.rows(), runs);
    uint64_t rows = 0;
    for (const families::RowRun& run : runs) {
      SLUICE_CHECK(run.tensor < checkpoint.tensors.size());
      rows += run.rows;
    }
    SLUICE_CHECK(rows == module.rows());
  }
  return 0;
}
