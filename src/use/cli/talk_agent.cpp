// /agent and /search: requests done with tools, kept in the conversation with all that was called
// and found.
#include <algorithm>

#include "chat/agent_turn.h"
#include "chat/tools/search_tool.h"
#include "chat/visible_text.h"
#include "cli/agent_run.h"
#include "cli/interrupt.h"
#include "cli/talk.h"

namespace sluice::cli {
namespace {

constexpr const char* kSearchFunction = "web_search";

chat::Tool* search_tool(const Tools& tools) {
  const auto found = std::ranges::find(tools, "search", [](const auto& t) { return t->name(); });
  return found == tools.end() ? nullptr : found->get();
}

}  // namespace

Result<std::string> Talk::do_request(const std::string& text) {
  SLUICE_TRY(desk_->open());
  std::vector<chat::Message> messages = kept_.all();
  const size_t before = messages.size();
  messages.push_back({.role = chat::Role::kUser, .content = text});
  CancelToken cancel;
  const InterruptScope scope(cancel, SecondInterrupt::kDoesNothing);
  const AgentWork work{*talking_, arguments_.generation, input_.variables,
                       *desk_,    draws_busy(),          draws_markdown(),
                       cancel};
  SLUICE_ASSIGN(AgentDone done, run_agent(work, chat::messages_json(messages)));
  if (done.last) last_ = std::move(done.last);
  SLUICE_ASSIGN(messages, chat::parse_messages(done.run.messages, "messages"));
  const bool cancelled = done.run.finish_reason == "cancelled";
  if (messages.size() <= before + 1) {
    context_.console->info("nothing was done; the conversation is as it was");
    return done.run.finish_reason;
  }
  messages.erase(messages.begin(), messages.begin() + static_cast<ptrdiff_t>(before));
  kept_.put(kept_.messages().size(), std::move(messages), talking_->name);
  if (cancelled) context_.console->info("stopped");
  return done.run.finish_reason;
}

Result<bool> Talk::on_agent(const std::string& rest) {
  if (rest.empty())
    return fail(ErrorCode::kInvalidArgument, "say what is to be done: /agent REQUEST");
  SLUICE_TRY(do_request(rest));
  return true;
}

// The user has typed the query, so nobody is asked. The model is shown a call of its own.
Result<bool> Talk::on_search(const std::string& rest) {
  if (rest.empty())
    return fail(ErrorCode::kInvalidArgument, "say what to search for: /search QUERY");
  SLUICE_TRY(desk_->open());
  chat::Tool* const tool = search_tool(desk_->tools());
  if (tool == nullptr)
    return fail(ErrorCode::kInvalidArgument, "--tools leaves out searching; add search to it");
  const Json arguments = {{"query", rest}};
  SLUICE_ASSIGN(const chat::ToolPlan plan, tool->plan(kSearchFunction, arguments));
  CancelToken cancel;
  std::string found;
  {
    const InterruptScope scope(cancel, SecondInterrupt::kDoesNothing);
    SLUICE_ASSIGN(chat::ToolOutput output, plan.run(&cancel));
    found = std::move(output.text);
  }
  context_.print(chat::visible_text(found) + "\n");
  // Letters and digits, nine of them: some templates take nothing else.
  const std::string id = fmt::format("search{:03}", kept_.messages().size() % 1000);
  const std::vector<chat::Message> asked = {
      {.role = chat::Role::kUser, .content = rest},
      {.role = chat::Role::kAssistant, .tool_calls = {{id, kSearchFunction, dump_json(arguments)}}},
      {.role = chat::Role::kTool,
       .content = chat::untrusted_text(kSearchFunction, found,
                                       chat::output_bytes_for(talking_->session->context())),
       .tool_call_id = id,
       .name = kSearchFunction}};
  std::vector<chat::Message> messages = kept_.all();
  messages.insert(messages.end(), asked.begin(), asked.end());
  SLUICE_ASSIGN(Written written, write(messages, *talking_->sampler, 0));
  SLUICE_TRY(keep_answer(kept_.messages().size(), asked, std::move(written)));
  return true;
}

}  // namespace sluice::cli
