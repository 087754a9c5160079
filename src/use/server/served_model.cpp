#include "server/served_model.h"

namespace sluice::server {

ServedModel::ServedModel(chat::ChatModel opened, runtime::SamplerOptions own,
                         const kernels::LayerOps& ops, const SchedulerOptions& options)
    : chat(std::move(opened)),
      sampling(std::move(own)),
      syntax(chat::ToolSyntax::of_template(
          chat.chat_template ? std::string_view(chat.chat_template->source(true)) : "")),
      shown(syntax.shown_tokens(chat.tokenizer)),
      scheduler(chat, ops, options) {}

}  // namespace sluice::server
