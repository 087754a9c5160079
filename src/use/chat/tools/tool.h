// What an agent can do beside talking. A tool checks the arguments that a model wrote, says exactly
// what it is about to do, and does it once somebody has agreed. Who agrees is the caller's
// business.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/ordered_json.h"
#include "base/thread.h"

namespace sluice::chat {

// What doing it can bring about, by which a policy decides.
enum class ToolEffect : uint8_t {
  kReads,    // of the work folder, and changes nothing
  kSends,    // text to another machine
  kChanges,  // files of the work folder
  kRuns,     // a program
};

struct ToolSource {
  std::string title, url;
  bool operator==(const ToolSource&) const = default;
};

struct ToolOutput {
  std::string text;  // as it came: untrusted, not yet capped
  std::vector<ToolSource> sources;
};

// A call whose arguments are in order.
struct ToolPlan {
  ToolEffect effect = ToolEffect::kRuns;
  std::string shown;  // all of what would be done; may hold control characters of the model's
  std::function<Result<ToolOutput>(const CancelToken* cancel)> run;
};

// A group of functions that are allowed together: "search", "shell", "files". One thread.
class Tool {
 public:
  virtual ~Tool() = default;
  virtual std::string_view name() const = 0;
  // OpenAI's list of functions; their names are unique among all tools. Calls are written in the
  // order of their parameters.
  virtual OrderedJson functions() const = 0;
  // Changes nothing. arguments: any JSON of the model's. Errors: kInvalidArgument and kNotFound
  // with what the model should have done, since it is told.
  virtual Result<ToolPlan> plan(std::string_view function, const Json& arguments) = 0;
};

}  // namespace sluice::chat
