#include "cli/model_outlook.h"

#include <filesystem>

#include "base/units.h"

namespace sluice::cli {
namespace {

// Of the model's bytes, in percent.
constexpr uint64_t kShares[] = {75, 50, 37, 25, 12};

double tokens_per_s(const ModelOutlook::Row& row, double disk_bytes_per_s) {
  return row.disk_bytes_token == 0 ? 0
                                   : disk_bytes_per_s / static_cast<double>(row.disk_bytes_token);
}

ModelOutlook::Row row_of(Context& context, const std::string& path, EngineArguments arguments,
                         uint64_t memory_bytes, ModelOutlook& outlook) {
  ModelOutlook::Row row;
  row.memory_bytes = memory_bytes;
  arguments.memory = memory_bytes == 0 ? "" : fmt::format("{}B", memory_bytes);
  const auto running = plan_engine(context, path, arguments);
  if (!running) {
    row.refusal = running.error().message;
    return row;
  }
  const runtime::ModelInfo& info = running->engine->info();
  row.need = running->engine->memory();
  row.disk_bytes_token = info.disk_bytes_token;
  row.experts_there = info.experts_there;
  outlook.path = info.path;
  outlook.family = info.family;
  outlook.storage = info.storage;
  outlook.weight_bytes = info.weight_bytes;
  outlook.read_bytes_token = info.read_bytes_token;
  return row;
}

}  // namespace

bool looks_like_model(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored))
    return std::filesystem::exists(path + "/config.json", ignored);
  return path.ends_with(".gguf");
}

Result<ModelOutlook> model_outlook(Context& context, const std::string& path,
                                   const EngineArguments& arguments) {
  ModelOutlook outlook;
  if (!arguments.memory.empty()) {
    SLUICE_ASSIGN(const uint64_t bytes, parse_bytes(arguments.memory));
    outlook.rows.push_back(row_of(context, path, arguments, bytes, outlook));
  } else {
    outlook.rows.push_back(row_of(context, path, arguments, 0, outlook));
    for (const uint64_t share : kShares) {
      if (outlook.weight_bytes == 0) break;
      outlook.rows.push_back(
          row_of(context, path, arguments, outlook.weight_bytes / 100 * share, outlook));
      if (!outlook.rows.back().refusal.empty()) break;
    }
  }
  // Nothing is known where even the first cannot run.
  if (outlook.weight_bytes == 0)
    return fail(ErrorCode::kInvalidArgument, "{}", outlook.rows.front().refusal);
  return outlook;
}

std::string outlook_text(const ModelOutlook& outlook, double disk_bytes_per_s) {
  std::string text = fmt::format(
      "{}: {}, {}, {} of weights, {} of them read for each token\n", outlook.path, outlook.family,
      outlook.storage, bytes_text(outlook.weight_bytes), bytes_text(outlook.read_bytes_token));
  Table table({Align::kLeft, Align::kRight, Align::kRight, Align::kRight, Align::kRight,
               Align::kRight, Align::kRight, Align::kRight});
  table.add({"memory", "weights", "keys, values, states", "scratch", "program", "experts there",
             "disk, a token", "tokens/s at most"});
  std::string refusals;
  for (const ModelOutlook::Row& row : outlook.rows) {
    const std::string memory =
        row.memory_bytes == 0 ? "this machine's" : bytes_text(row.memory_bytes);
    if (!row.refusal.empty()) {
      refusals += fmt::format("in {}: {}\n", memory, row.refusal);
      continue;
    }
    const double rate = tokens_per_s(row, disk_bytes_per_s);
    table.add({memory, bytes_text(row.need.weights), bytes_text(row.need.kv + row.need.states),
               bytes_text(row.need.scratch), bytes_text(row.need.program),
               row.experts_there < 1 ? fmt::format("{:.0f} %", 100 * row.experts_there) : "all",
               row.disk_bytes_token == 0 ? "nothing" : bytes_text(row.disk_bytes_token),
               rate == 0 ? "" : fmt::format("{:.1f} by disk", rate)});
  }
  return text + table.text("  ") + refusals;
}

Json outlook_json(const ModelOutlook& outlook, double disk_bytes_per_s) {
  Json rows = Json::array();
  for (const ModelOutlook::Row& row : outlook.rows) {
    const Json memory = row.memory_bytes == 0 ? Json() : Json(row.memory_bytes);
    if (!row.refusal.empty()) {
      rows.push_back({{"memory_bytes", memory}, {"refusal", row.refusal}});
      continue;
    }
    const double rate = tokens_per_s(row, disk_bytes_per_s);
    rows.push_back({{"memory_bytes", memory},
                    {"weights", row.need.weights},
                    {"kv", row.need.kv},
                    {"states", row.need.states},
                    {"scratch", row.need.scratch},
                    {"program", row.need.program},
                    {"experts_there", row.experts_there},
                    {"disk_bytes_token", row.disk_bytes_token},
                    {"disk_tokens_per_s_max", rate == 0 ? Json() : Json(rate)}});
  }
  return {{"path", outlook.path},
          {"family", outlook.family},
          {"storage", outlook.storage},
          {"weight_bytes", outlook.weight_bytes},
          {"read_bytes_token", outlook.read_bytes_token},
          {"memory", std::move(rows)}};
}

}  // namespace sluice::cli
