// Which part of a job a launcher's environment names.
#include "cli/part_option.h"

#include <gmock/gmock.h>

#include <map>

namespace sluice::cli {
namespace {

using ::testing::HasSubstr;

Result<FoundPart> found_in(const std::map<std::string, std::string>& variables) {
  return part_of_environment([&](const char* name) {
    const auto variable = variables.find(name);
    return variable == variables.end() ? nullptr : variable->second.c_str();
  });
}

void expect_part(const std::map<std::string, std::string>& variables, stream::Part part,
                 const std::string& launcher) {
  const auto found = found_in(variables);
  ASSERT_TRUE(found.has_value()) << found.error().message;
  EXPECT_EQ(found->part, part);
  EXPECT_EQ(found->launcher, launcher);
}

TEST(PartOfEnvironment, KnowsTheLaunchers) {
  expect_part({}, {}, "");
  expect_part({{"SLURM_PROCID", "2"}, {"SLURM_STEP_NUM_TASKS", "4"}}, {2, 4}, "Slurm");
  expect_part({{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "8"}}, {0, 8}, "Open MPI");
  expect_part({{"JOB_COMPLETION_INDEX", "7"}, {"SLUICE_PARTS", "8"}}, {7, 8}, "Kubernetes");
}

TEST(PartOfEnvironment, ABatchScriptIsNoTask) {
  expect_part({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}}, {}, "");
}

TEST(PartOfEnvironment, RefusesWhatMakesNoSense) {
  for (const auto& [variables, message] :
       {std::pair<std::map<std::string, std::string>, std::string>{{{"JOB_COMPLETION_INDEX", "1"}},
                                                                   "SLUICE_PARTS is not"},
        {{{"OMPI_COMM_WORLD_RANK", "4"}, {"OMPI_COMM_WORLD_SIZE", "4"}}, "SIZE=4"},
        {{{"OMPI_COMM_WORLD_RANK", "x"}, {"OMPI_COMM_WORLD_SIZE", "4"}}, "RANK=\"x\""},
        {{{"OMPI_COMM_WORLD_RANK", "-1"}, {"OMPI_COMM_WORLD_SIZE", "4"}}, "no number"},
        {{{"SLURM_PROCID", "1"}, {"SLURM_STEP_NUM_TASKS", "99999"}}, "no number up to 4096"}}) {
    const auto found = found_in(variables);
    ASSERT_FALSE(found.has_value()) << message;
    EXPECT_EQ(found.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(found.error().message, HasSubstr(message));
  }
}

}  // namespace
}  // namespace sluice::cli
