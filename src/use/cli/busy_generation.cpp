#include "cli/busy_generation.h"

#include "base/clock.h"
#include "base/machine.h"
#include "base/units.h"

namespace sluice::cli {
namespace {

// The busy line's figures are worth no more work than this.
constexpr double kFiguresEvery_s = 0.2;

std::string figures(const TalkingModel& talking, size_t prompt_tokens, size_t tokens,
                    double seconds) {
  const runtime::Session& session = *talking.session;
  std::string text = tokens == 0
                         ? fmt::format("reading {} tokens", prompt_tokens)
                         : fmt::format("{:.1f} tokens/s",
                                       seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0);
  text += fmt::format("  context {} of {}  memory {}", session.size(), session.context(),
                      bytes_text(resident_bytes()));
  const uint64_t read = talking.engine().statistics().bytes_read;
  return read == 0 ? text : text + fmt::format("  from disk {}", bytes_text(read));
}

}  // namespace

Result<chat::Generation> generate_busy(TalkingModel& talking, std::span<const uint32_t> tokens,
                                       runtime::Sampler& sampler,
                                       const chat::GenerateOptions& options, BusyLine& busy,
                                       const chat::OnText& on_text, const CancelToken& cancel) {
  talking.engine().adapt_memory();
  busy.say(figures(talking, tokens.size(), 0, 0));
  std::optional<Stopwatch> since_first;
  double drawn_s = -1;
  const size_t before = tokens.size();
  return chat::generate(
      *talking.model, *talking.session, tokens, choose_with(sampler), options,
      [&](std::string_view piece) {
        if (!since_first) since_first.emplace();
        const double seconds = since_first->seconds();
        if (busy.shown() && seconds - drawn_s >= kFiguresEvery_s) {
          drawn_s = seconds;
          const size_t there = talking.session->size();
          busy.say(figures(talking, before, there > before ? there - before : 1, seconds));
        }
        return on_text(piece);
      },
      &cancel);
}

}  // namespace sluice::cli
