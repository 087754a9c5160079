#include "cli/part_option.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdlib>
#include <string_view>

namespace sluice::cli {
namespace {

struct Launcher {
  const char* name;
  const char* index;  // counted from zero
  const char* count;
};

// srun sets the step's size only inside a step; SLURM_NTASKS would also be there in a batch script,
// which runs once. The count of an indexed job is not in its pods' environment.
constexpr Launcher kLaunchers[] = {
    {"Slurm", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"},
    {"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
    {"Kubernetes", "JOB_COMPLETION_INDEX", "SLUICE_PARTS"},
};

Result<uint32_t> number_of(const char* variable, std::string_view text) {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && value <= stream::kPartsMax)
    return value;
  return fail(ErrorCode::kInvalidArgument,
              "the environment's {}=\"{}\" is no number up to {}; pass --part i/n", variable, text,
              stream::kPartsMax);
}

}  // namespace

void add_part_option(CLI::App& command, std::string& text) {
  command
      .add_option("--part", text,
                  "i/n: do one of n shares, for several machines over a shared folder (default: "
                  "what srun, mpirun or an indexed Kubernetes job with SLUICE_PARTS says)")
      ->check(CLI::Validator(
          [](const std::string& part) {
            const auto parsed = stream::parse_part(part);
            return parsed ? std::string() : parsed.error().message;
          },
          "I/N"));
}

Result<FoundPart> part_of_environment(const Environment& environment) {
  for (const Launcher& launcher : kLaunchers) {
    const char* index_text = environment(launcher.index);
    const char* count_text = environment(launcher.count);
    if (index_text == nullptr) continue;
    if (count_text == nullptr) {
      if (std::string_view(launcher.name) != "Kubernetes") continue;
      return fail(ErrorCode::kInvalidArgument,
                  "{} is set but {} is not: set it to the job's number of completions, or pass "
                  "--part 1/1 to do everything here",
                  launcher.index, launcher.count);
    }
    SLUICE_ASSIGN(const uint32_t index, number_of(launcher.index, index_text));
    SLUICE_ASSIGN(const uint32_t count, number_of(launcher.count, count_text));
    if (index >= count)
      return fail(ErrorCode::kInvalidArgument,
                  "the environment says {}={} but {}={}; pass --part i/n", launcher.index, index,
                  launcher.count, count);
    return FoundPart{{index, count}, launcher.name};
  }
  return FoundPart{};
}

Result<stream::Part> choose_part(Context& context, const std::string& text) {
  if (!text.empty()) return stream::parse_part(text);
  SLUICE_ASSIGN(const FoundPart found,
                part_of_environment([](const char* name) { return std::getenv(name); }));
  if (!found.part.whole())
    context.console->info(
        fmt::format("part {}, as {} says", stream::part_text(found.part), found.launcher));
  return found.part;
}

}  // namespace sluice::cli
