#include "cli/bench_drafts.h"

#include <algorithm>

#include "base/units.h"

namespace sluice::cli {
namespace {

constexpr std::string_view kText =
    "The river rose in the night, and by morning the lower fields were under water. The farmers "
    "stood at the edge of the road and talked about the dam, the rain, and what was to be done. "
    "One of them said";

struct Side {
  std::vector<double> rates, disk_bytes;
  chat::Generation last;
};

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

Status write_once(const chat::ChatModel& model, std::span<const uint32_t> prompt,
                  const chat::GenerateOptions& options, Side& side, const CancelToken* cancel) {
  runtime::Engine& engine = *model.engine;
  runtime::Session session = engine.new_session();
  uint64_t begun = 0;
  const chat::Choose choose = [&](std::span<const float> logits,
                                  std::span<const uint32_t> text) -> Result<uint32_t> {
    if (text.size() == prompt.size()) begun = engine.statistics().bytes_read;
    return static_cast<uint32_t>(std::ranges::max_element(logits) - logits.begin());
  };
  SLUICE_ASSIGN(side.last, chat::generate(
                               model, session, prompt, choose, options,
                               [](std::string_view) { return true; }, cancel));
  if (side.last.finish == chat::Finish::kCancelled)
    return fail(ErrorCode::kCancelled, "stopped before all was measured");
  const auto tokens = static_cast<double>(side.last.tokens);
  side.rates.push_back(tokens / side.last.decode_s);
  side.disk_bytes.push_back(static_cast<double>(engine.statistics().bytes_read - begun) / tokens);
  return {};
}

}  // namespace

Result<DraftBench> bench_draft(Context& context, const chat::ChatModel& model,
                               const DraftArguments& arguments, Drafting& drafting, size_t tokens,
                               size_t repetitions) {
  SLUICE_ASSIGN(const auto prompt, model.tokenizer.encode(kText, true));
  SLUICE_TRY(chat::check_prompt(prompt, model.engine->info().context));
  chat::GenerateOptions options;
  options.tokens_max = tokens;
  options.ignore_end = true;
  Side plain, guessed;
  for (size_t i = 0; i < repetitions; ++i) {
    options.draft = nullptr;
    SLUICE_TRY(write_once(model, prompt, options, plain, context.cancel));
    options.draft = drafting.draft.get();
    SLUICE_TRY(write_once(model, prompt, options, guessed, context.cancel));
    if (plain.last.text != guessed.last.text)
      return fail(ErrorCode::kCorrupt, "guessing ahead changed the text");
  }
  return DraftBench{.draft = arguments.lookup ? "lookup" : arguments.model,
                    .tokens = guessed.last.tokens,
                    .plain_tokens_per_s = median(plain.rates),
                    .tokens_per_s = median(guessed.rates),
                    .plain_disk_bytes_token = median(plain.disk_bytes),
                    .disk_bytes_token = median(guessed.disk_bytes),
                    .steps = guessed.last.steps,
                    .drafted = guessed.last.drafted,
                    .accepted = guessed.last.accepted,
                    .draft_share = guessed.last.draft_s / guessed.last.decode_s};
}

std::string draft_bench_text(const DraftBench& found) {
  Table table({Align::kLeft, Align::kRight, Align::kRight, Align::kRight});
  table.add({"writing " + std::to_string(found.tokens) + " tokens", "tokens/s",
             "from disk, a token", "tokens a step"});
  const auto row = [&](const std::string& name, double rate, double bytes, double steps) {
    table.add({name, fmt::format("{:.2f}", rate), bytes_text(static_cast<uint64_t>(bytes)),
               fmt::format("{:.2f}", static_cast<double>(found.tokens) / steps)});
  };
  row("alone", found.plain_tokens_per_s, found.plain_disk_bytes_token,
      static_cast<double>(found.tokens));
  row("with " + found.draft, found.tokens_per_s, found.disk_bytes_token,
      static_cast<double>(found.steps));
  return table.text("  ") +
         fmt::format("  {} of {} guesses right; guessing took {:.0f} % of the time\n",
                     found.accepted, found.drafted, 100 * found.draft_share);
}

Json draft_bench_json(const DraftBench& found) {
  return {{"draft", found.draft},
          {"tokens", found.tokens},
          {"plain_tokens_per_s", found.plain_tokens_per_s},
          {"tokens_per_s", found.tokens_per_s},
          {"plain_disk_bytes_token", found.plain_disk_bytes_token},
          {"disk_bytes_token", found.disk_bytes_token},
          {"steps", found.steps},
          {"drafted", found.drafted},
          {"accepted", found.accepted},
          {"draft_share", found.draft_share}};
}

}  // namespace sluice::cli
