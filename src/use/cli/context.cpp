#include "cli/context.h"

#include <cstdio>

namespace sluice::cli {

void Context::print_json(const Json& json) const { print(dump_json(json, 2) + "\n"); }

void Context::print(std::string_view text) const {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

int exit_code_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kNotFound:
    case ErrorCode::kCorrupt:
    case ErrorCode::kUnsupported:
    case ErrorCode::kInvalidArgument: return kExitBadInput;
    case ErrorCode::kIo:
    case ErrorCode::kExhausted: return kExitIo;
    case ErrorCode::kCancelled: return kExitInterrupted;
  }
  return kExitBadInput;
}

}  // namespace sluice::cli
