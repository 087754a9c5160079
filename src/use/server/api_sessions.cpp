// The routes of sessions that are kept on disk.
#include "server/api.h"
#include "server/text.h"

namespace sluice::server {
namespace {

// What a file has beside tokens, keys, values and states, at most.
constexpr uint64_t kHeaderBytesMax = 128 << 10;

uint64_t file_bytes(const runtime::Session& session, const runtime::ModelInfo& info) {
  return session.size() * (info.kv_bytes_token + sizeof(uint32_t)) + info.state_bytes +
         kHeaderBytesMax;
}

}  // namespace

Json Api::session_json(const KeptSession& kept) const {
  Json model;
  for (size_t i = 0; i < models_.size(); ++i)
    if (models_.card(i).identity == kept.model) model = models_.card(i).name;
  return {{"object", "session"},
          {"name", kept.name},
          {"model", std::move(model)},
          {"bytes", kept.bytes},
          {"saved_at", kept.saved_s}};
}

void Api::kept_sessions(const std::shared_ptr<Exchange>& exchange, const Json&) {
  const auto sessions = sessions_.list();
  if (!sessions) return reply_error(*exchange, sessions.error());
  Json data = Json::array();
  for (const KeptSession& kept : *sessions) data.push_back(session_json(kept));
  reply_json(*exchange, {{"object", "list"}, {"data", std::move(data)}});
}

void Api::delete_session(const std::shared_ptr<Exchange>& exchange, const Json&) {
  const std::string name = name_behind(*exchange, "/v1/sessions/");
  const auto index = models_.find(query_value(exchange->request().query, "model"));
  if (!index) return reply_error(*exchange, {ErrorCode::kNotFound, "model: it is not served here"});
  if (const Status removed = sessions_.remove(models_.card(*index).identity, name); !removed)
    return reply_error(*exchange, removed.error());
  reply_json(*exchange, {{"object", "session"}, {"name", name}, {"deleted", true}});
}

void Api::save_session(const std::shared_ptr<Exchange>& exchange, const Json& body,
                       const ModelLease& model) {
  const auto request = parse_session_request(body);
  if (!request) return reply_error(*exchange, request.error(), body);
  with_session(exchange, model, *request, SlotWish::kLatest,
               [this, name = request->name, served = model.get()](runtime::Session& session) {
                 const runtime::ModelInfo& info = served->chat.engine->info();
                 return sessions_.save(info.identity.hex(), name, session,
                                       file_bytes(session, info));
               });
}

void Api::restore_session(const std::shared_ptr<Exchange>& exchange, const Json& body,
                          const ModelLease& model) {
  const auto request = parse_session_request(body);
  if (!request) return reply_error(*exchange, request.error(), body);
  const std::string identity = model->chat.engine->info().identity.hex();
  // Before a slot gives up what it has.
  if (const auto kept = sessions_.find(identity, request->name); !kept)
    return reply_error(*exchange, kept.error(), body);
  with_session(exchange, model, *request, SlotWish::kOldestIdle,
               [this, identity, name = request->name](runtime::Session& session) {
                 return sessions_.load(identity, name, session);
               });
}

void Api::with_session(const std::shared_ptr<Exchange>& exchange, const ModelLease& model,
                       const SessionRequest& request, SlotWish wish,
                       std::function<Status(runtime::Session& session)> work) {
  if (const Status offered = sessions_.offered(); !offered)
    return reply_error(*exchange, offered.error());
  ++running_;
  auto reply = [this, exchange, model, name = request.name, watch = Stopwatch()](
                   const Status& done, size_t slot, size_t tokens) {
    --running_;
    const auto kept = done ? sessions_.find(model->chat.engine->info().identity.hex(), name)
                           : std::unexpected(done.error());
    if (kept) {
      Json json = session_json(*kept);
      json["slot"] = slot;
      json["tokens"] = tokens;
      reply_json(*exchange, json);
    } else {
      reply_error(*exchange, kept.error(), {{"name", name}, {"slot", slot}});
    }
    finished(exchange, watch.seconds(), -1);
  };
  model->scheduler.visit_session(
      request.slot, wish,
      [server = server_, reply = std::move(reply), work = std::move(work)](
          const Result<runtime::Session*>& session, size_t slot) mutable {
        const Status done = session ? work(**session) : std::unexpected(session.error());
        const size_t tokens = session ? (*session)->size() : 0;
        // Exchange and model go back to the loop's thread with it.
        server->post([reply = std::move(reply), done, slot, tokens] { reply(done, slot, tokens); });
      });
}

}  // namespace sluice::server
