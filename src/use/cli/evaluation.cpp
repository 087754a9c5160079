#include "cli/evaluation.h"

#include <CLI/CLI.hpp>

namespace sluice::cli {
namespace {

constexpr uint64_t kTextBytesMax = 1ull << 30;
constexpr size_t kContextMin = 4;  // of evaluate::cut_windows()

}  // namespace

void add_window_options(CLI::App& command, TextArguments& arguments) {
  command
      .add_option("--protocol", arguments.protocol, "windows, scored part and BOS as which tool")
      ->check(CLI::IsMember({"llama.cpp", "mlx", "plain"}))
      ->capture_default_str();
  command.add_option("--windows", arguments.windows_max, "only so many windows; 0: all")
      ->capture_default_str();
}

Result<std::string> read_large_text(Context& context, const std::string& path) {
  SLUICE_ASSIGN(const auto source, context.storage->open_source(path));
  return io::read_text(*source, kTextBytesMax);
}

Result<std::vector<uint32_t>> tokens_of(const std::shared_ptr<runtime::Engine>& engine,
                                        const std::string& text) {
  SLUICE_ASSIGN(const chat::ChatModel model, chat::open_chat_model(engine, ""));
  return model.tokenizer.encode(text, false);
}

Result<std::vector<evaluate::Window>> windows_of(Context& context, const TextArguments& arguments,
                                                 uint64_t context_tokens,
                                                 const chat::ChatModel& model) {
  const auto protocol = *evaluate::protocol_from_name(arguments.protocol);
  SLUICE_ASSIGN(const std::string text, read_large_text(context, arguments.text));
  const bool plain = protocol == evaluate::Protocol::kPlain;
  SLUICE_ASSIGN(const auto ids, model.tokenizer.encode(text, !plain));
  SLUICE_ASSIGN(const auto start, model.tokenizer.encode("", true));
  // What the tokenizer itself puts first; a bos that it knows but does not add is none.
  const std::optional<uint32_t> bos =
      start.empty() || start.front() != model.tokenizer.special().bos
          ? std::nullopt
          : std::optional(start.front());
  const size_t tokens = context_tokens == 0 ? model.engine->info().context : context_tokens;
  if (tokens < kContextMin)
    return fail(ErrorCode::kInvalidArgument, "--context {}: a window takes at least {} tokens",
                tokens, kContextMin);
  SLUICE_ASSIGN(auto windows, evaluate::cut_windows(protocol, ids, tokens, bos));
  if (arguments.windows_max != 0 && windows.size() > arguments.windows_max)
    windows.resize(arguments.windows_max);
  return windows;
}

Json estimate_json(const evaluate::Estimate& estimate) {
  return {{"mean", estimate.mean}, {"low", estimate.low}, {"high", estimate.high}};
}

Json perplexity_json(const evaluate::Perplexity& found) {
  return {{"perplexity", estimate_json(found.perplexity)},
          {"median", found.median},
          {"trimmed", found.trimmed},
          {"nats_per_token", found.nats},
          {"windows", found.windows},
          {"tokens", found.tokens}};
}

std::string interval_text(const evaluate::Estimate& estimate, int digits) {
  return fmt::format("{:.{}f}  (95 %: {:.{}f} to {:.{}f})", estimate.mean, digits, estimate.low,
                     digits, estimate.high, digits);
}

evaluate::Estimate in_percent(const evaluate::Estimate& share) {
  return {100 * share.mean, 100 * share.low, 100 * share.high};
}

}  // namespace sluice::cli
