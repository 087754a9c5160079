#include "cli/agent_run.h"

#include "chat/agent_turn.h"
#include "cli/busy_generation.h"

namespace sluice::cli {
namespace {

// Of one turn, unless --max-tokens says how many.
constexpr uint64_t kTurnTokensMax = 4096;

// Turns of the agent on the session that one talks on.
class TurnGenerator {
 public:
  TurnGenerator(const AgentWork& work, std::optional<chat::Generation>& last)
      : work_(work), last_(last), renderer_(*work.talking.model, work.variables) {}

  const chat::ToolSyntax& syntax() const { return renderer_.syntax(); }

  Result<chat::AgentAnswer> operator()(const chat::AgentTurn& turn,
                                       const chat::OnAgentText& on_text) {
    SLUICE_ASSIGN(chat::TurnPrompt prompt, renderer_.render(turn));
    SLUICE_TRY(chat::check_prompt(prompt.tokens, work_.talking.session->context()));
    chat::GenerateOptions options =
        generate_options(work_.generation, work_.talking.drafting.draft.get());
    if (options.tokens_max == 0) options.tokens_max = kTurnTokensMax;
    options.constraint = prompt.constraint ? &*prompt.constraint : nullptr;
    options.shown = renderer_.shown();
    chat::TurnReader reader(renderer_.syntax(), prompt.text, turn.tools, on_text);
    BusyLine busy(work_.draws);
    work_.desk.begin_turn(work_.markdown, [&](std::string_view text) { return busy.print(text); });
    auto generation = generate_busy(
        work_.talking, prompt.tokens, *work_.talking.sampler, options, busy,
        [&](std::string_view piece) { return reader.feed(piece); }, work_.cancel);
    if (!generation) {
      work_.desk.end_turn();
      return std::unexpected(generation.error());
    }
    chat::AgentAnswer answer =
        reader.finish(generation->finish, generation->prompt_tokens, generation->tokens);
    work_.desk.end_turn();
    last_ = std::move(*generation);
    return answer;
  }

 private:
  const AgentWork& work_;
  std::optional<chat::Generation>& last_;
  const chat::TurnRenderer renderer_;
};

}  // namespace

Result<AgentDone> run_agent(const AgentWork& work, const Json& messages) {
  AgentDone done;
  TurnGenerator generator(work, done.last);
  const AgentArguments& arguments = work.desk.arguments();
  chat::AgentOptions how;
  how.steps_max = arguments.steps;
  how.output_bytes_max = chat::output_bytes_for(work.talking.session->context());
  how.native_tools = generator.syntax().in_template();
  how.policy = {arguments.yes_read_only, arguments.yes};
  how.cancel = &work.cancel;
  chat::Agent agent(how, tools_of(work.desk.tools()), std::ref(generator));
  work.desk.started(messages);
  SLUICE_ASSIGN(done.run, agent.run(messages, work.desk.callbacks(work.cancel)));
  work.desk.done(done.run);
  return done;
}

}  // namespace sluice::cli
