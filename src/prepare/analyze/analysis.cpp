#include "analyze/analysis.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "io/journal.h"

namespace sluice::analyze {
namespace {

using allocate::Candidate;

// JSON has no infinity; an exact encoding's SQNR is written as null.
Json db_to_json(double db) { return std::isfinite(db) ? Json(db) : Json(nullptr); }

Result<double> db_from_json(const Json& object, std::string_view key, std::string_view label) {
  if (json_find(object, key) == nullptr) return std::numeric_limits<double>::infinity();
  return json_number(object, key, label);
}

Result<double> sum_from_json(const Json& object, std::string_view key, std::string_view label) {
  SLUICE_ASSIGN(const double value, json_number(object, key, label));
  if (!(value >= 0))
    return fail(ErrorCode::kCorrupt, "{}: key \"{}\" should not be negative, found {}", label, key,
                value);
  return value;
}

Json candidate_to_json(const Candidate& candidate) {
  return {{"format", numerics::format_text(candidate.format)},
          {"encoder", numerics::encoder_name(candidate.encoder)},
          {"bytes", candidate.bytes},
          {"squared_error", candidate.error.squared_error},
          {"error_max", candidate.error.error_max},
          {"worst_expert_db", db_to_json(candidate.worst_expert_sqnr_db)},
          {"worst_expert", candidate.worst_expert},
          {"worst_row_db", db_to_json(candidate.worst_row_sqnr_db)}};
}

Result<Candidate> candidate_from_json(const Json& json, double squared_weight,
                                      std::string_view label) {
  Candidate candidate;
  SLUICE_ASSIGN(const std::string format, json_string(json, "format", label));
  SLUICE_ASSIGN(candidate.format, numerics::parse_format(format));
  SLUICE_ASSIGN(const std::string encoder, json_string(json, "encoder", label));
  const auto known = numerics::encoder_from_name(encoder);
  if (!known) return fail(ErrorCode::kCorrupt, "{}: unknown encoder \"{}\"", label, encoder);
  candidate.encoder = *known;
  SLUICE_ASSIGN(const int64_t bytes, json_int(json, "bytes", 0, INT64_MAX, label));
  candidate.bytes = static_cast<uint64_t>(bytes);
  SLUICE_ASSIGN(candidate.error.squared_error, sum_from_json(json, "squared_error", label));
  SLUICE_ASSIGN(candidate.error.error_max, sum_from_json(json, "error_max", label));
  candidate.error.squared_weight = squared_weight;
  SLUICE_ASSIGN(candidate.worst_expert_sqnr_db, db_from_json(json, "worst_expert_db", label));
  SLUICE_ASSIGN(const int64_t expert, json_int(json, "worst_expert", 0, UINT32_MAX, label));
  candidate.worst_expert = static_cast<uint32_t>(expert);
  SLUICE_ASSIGN(candidate.worst_row_sqnr_db, db_from_json(json, "worst_row_db", label));
  return candidate;
}

Status shape_from_json(const Json& json, std::string_view label, ModuleRecord& record) {
  SLUICE_ASSIGN(const Json* shape, json_array(json, "shape", label));
  for (const Json& axis : *shape) {
    if (!axis.is_number_unsigned())
      return fail(ErrorCode::kCorrupt, "{}: {}: shape should hold whole numbers", label,
                  record.item.path);
    record.shape.push_back(axis.get<uint64_t>());
  }
  SLUICE_ASSIGN(const std::string dtype, json_string(json, "plain_dtype", label));
  const auto known = numerics::dtype_from_safetensors(dtype);
  if (!known) return fail(ErrorCode::kCorrupt, "{}: unknown dtype \"{}\"", label, dtype);
  record.plain_dtype = *known;
  if (record.shape.empty() || numerics::element_count(record.shape) != record.item.elements ||
      !numerics::tensor_bytes(*known, record.shape))
    return fail(ErrorCode::kCorrupt, "{}: {}: shape {} does not hold {} elements", label,
                record.item.path, numerics::shape_text(record.shape), record.item.elements);
  return {};
}

// [layers, kv_heads, head_dim, window] of those that keep alike.
Json kv_to_json(std::span<const families::KvShape> shapes) {
  Json list = Json::array();
  for (const families::KvShape& shape : shapes)
    list.push_back({shape.layers, shape.kv_heads, shape.head_dim, shape.window});
  return list;
}

Result<std::vector<families::KvShape>> kv_from_json(const Json& record, std::string_view label) {
  constexpr uint64_t kNumberMax = 1 << 24;
  SLUICE_ASSIGN(const Json* list, json_array(record, "kv", label));
  std::vector<families::KvShape> shapes;
  for (const Json& entry : *list) {
    const bool sound =
        entry.is_array() && entry.size() == 4 && std::ranges::all_of(entry, [](const Json& number) {
          return number.is_number_unsigned() && number.get<uint64_t>() <= kNumberMax;
        });
    if (!sound)
      return fail(ErrorCode::kCorrupt, "{}: kv should hold lists of four numbers, found {}", label,
                  dump_json(entry));
    shapes.push_back({entry[0], entry[1], entry[2], entry[3]});
  }
  return shapes;
}

}  // namespace

std::vector<allocate::Item> Analysis::items() const {
  std::vector<allocate::Item> items;
  for (const ModuleRecord& record : records) items.push_back(record.item);
  return items;
}

numerics::DType Analysis::model_dtype() const {
  return *numerics::dtype_from_model_name(header.dtype);
}

Result<uint64_t> Analysis::exact_bytes(std::span<const uint32_t> choice) const {
  SLUICE_CHECK(choice.size() == records.size());
  std::vector<stream::LayoutModule> modules;
  std::vector<numerics::QuantFormat> formats;
  for (size_t i = 0; i < records.size(); ++i) {
    modules.push_back(records[i].layout());
    formats.push_back(records[i].item.candidates.at(choice[i]).format);
  }
  SLUICE_ASSIGN(const stream::OutputLayout layout,
                stream::layout_output(modules, model_dtype(), formats));
  return layout.file_bytes;
}

Json header_to_json(const AnalysisHeader& header) {
  Json record = {{"kind", "analysis"},
                 {"version", kAnalysisVersion},
                 {"source", header.source.hex()},
                 {"family", header.family},
                 {"dtype", header.dtype},
                 {"layers", header.layers},
                 {"kv", kv_to_json(header.kv)},
                 {"modules", header.modules},
                 {"best_formats", header.best_formats}};
  if (!header.only_layers.empty()) record["only_layers"] = header.only_layers;
  stream::part_to_json(header.part, record);
  return record;
}

Result<AnalysisHeader> header_from_json(const Json& record, std::string_view label) {
  const auto kind = json_string(record, "kind", label);
  if (!kind || *kind != "analysis")
    return fail(ErrorCode::kCorrupt, "{}: this is not an analysis file", label);
  SLUICE_ASSIGN(const int64_t version, json_int(record, "version", 0, INT32_MAX, label));
  if (version != kAnalysisVersion)
    return fail(ErrorCode::kUnsupported, "{}: analysis version {} is not {}; analyze again", label,
                version, kAnalysisVersion);
  AnalysisHeader header;
  SLUICE_ASSIGN(const std::string source, json_string(record, "source", label));
  SLUICE_ASSIGN(header.source, Digest::from_hex(source));
  SLUICE_ASSIGN(header.family, json_string(record, "family", label));
  if (record.contains("only_layers")) {
    SLUICE_ASSIGN(header.only_layers, json_string(record, "only_layers", label));
  }
  SLUICE_ASSIGN(header.dtype, json_string(record, "dtype", label));
  if (!numerics::dtype_from_model_name(header.dtype))
    return fail(ErrorCode::kCorrupt, "{}: unknown dtype \"{}\"", label, header.dtype);
  SLUICE_ASSIGN(const int64_t layers, json_int(record, "layers", 0, INT32_MAX, label));
  header.layers = static_cast<int>(layers);
  SLUICE_ASSIGN(header.kv, kv_from_json(record, label));
  SLUICE_ASSIGN(const int64_t modules, json_int(record, "modules", 0, UINT32_MAX, label));
  header.modules = static_cast<uint64_t>(modules);
  SLUICE_ASSIGN(const Json* formats, json_array(record, "best_formats", label));
  for (const Json& format : *formats) {
    if (!format.is_string())
      return fail(ErrorCode::kCorrupt, "{}: best_formats should hold strings", label);
    header.best_formats.push_back(format.get<std::string>());
  }
  SLUICE_ASSIGN(header.part, stream::part_from_json(record, label));
  return header;
}

Json record_to_json(const ModuleRecord& record) {
  const allocate::Item& item = record.item;
  Json candidates = Json::array();
  for (const Candidate& candidate : item.candidates)
    candidates.push_back(candidate_to_json(candidate));
  return {{"path", item.path},
          {"parameter", item.parameter},
          {"role", item.role},
          {"layer", item.layer},
          {"elements", item.elements},
          {"shape", record.shape},
          {"plain_dtype", dtype_info(record.plain_dtype).name},
          {"bits_floor", item.bits_floor},
          {"quantizable", item.quantizable},
          {"source", record.item.source.hex()},
          {"squared_weight", item.candidates.front().error.squared_weight},
          {"candidates", std::move(candidates)}};
}

Result<ModuleRecord> record_from_json(const Json& json, std::string_view label) {
  ModuleRecord record;
  allocate::Item& item = record.item;
  SLUICE_ASSIGN(item.path, json_string(json, "path", label));
  SLUICE_ASSIGN(item.parameter, json_string(json, "parameter", label));
  SLUICE_ASSIGN(item.role, json_string(json, "role", label));
  SLUICE_ASSIGN(const int64_t layer, json_int(json, "layer", -1, INT32_MAX, label));
  item.layer = static_cast<int>(layer);
  SLUICE_ASSIGN(const int64_t elements, json_int(json, "elements", 0, INT64_MAX, label));
  item.elements = static_cast<uint64_t>(elements);
  SLUICE_TRY(shape_from_json(json, label, record));
  SLUICE_ASSIGN(const int64_t bits_floor, json_int(json, "bits_floor", 0, 16, label));
  item.bits_floor = static_cast<int>(bits_floor);
  SLUICE_ASSIGN(item.quantizable, json_bool(json, "quantizable", label));
  SLUICE_ASSIGN(const std::string source, json_string(json, "source", label));
  SLUICE_ASSIGN(record.item.source, Digest::from_hex(source));
  SLUICE_ASSIGN(const double squared_weight, sum_from_json(json, "squared_weight", label));
  SLUICE_ASSIGN(const Json* candidates, json_array(json, "candidates", label));
  for (const Json& entry : *candidates) {
    SLUICE_ASSIGN(Candidate candidate, candidate_from_json(entry, squared_weight, label));
    item.candidates.push_back(candidate);
  }
  if (item.candidates.empty())
    return fail(ErrorCode::kCorrupt, "{}: {} has no candidates", label, item.path);
  return record;
}

Result<Analysis> load_analysis(const io::ByteSource& source) {
  Analysis analysis;
  bool complete = false;
  uint64_t count = 0;
  Hasher hasher;
  const auto end = io::read_journal(source, [&](const Json& record) -> Status {
    hasher.update(dump_json(record));
    if (count++ == 0) {
      SLUICE_ASSIGN(analysis.header, header_from_json(record, source.label()));
    } else if (record.contains("complete")) {
      complete = true;
    } else {
      SLUICE_ASSIGN(ModuleRecord module, record_from_json(record, source.label()));
      analysis.records.push_back(std::move(module));
    }
    return {};
  });
  if (!end) return std::unexpected(end.error());
  if (count == 0)
    return fail(ErrorCode::kCorrupt, "{}: this is not an analysis file", source.label());
  if (end->torn && complete)
    return fail(ErrorCode::kCorrupt, "{}: damaged at byte {}; analyze again", source.label(),
                end->valid_bytes);
  if (!analysis.header.part.whole())
    return fail(ErrorCode::kInvalidArgument,
                "{}: holds part {} of an analysis; sluice merge joins the parts", source.label(),
                stream::part_text(analysis.header.part));
  if (!complete || analysis.records.size() != analysis.header.modules)
    return fail(ErrorCode::kInvalidArgument,
                "{}: holds {} of {} modules (valid up to byte {}); run analyze again to finish it",
                source.label(), analysis.records.size(), analysis.header.modules, end->valid_bytes);
  analysis.digest = hasher.finish();
  return analysis;
}

}  // namespace sluice::analyze
