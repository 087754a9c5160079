#include "convert/parts.h"

#include "base/json.h"
#include "convert/convert.h"
#include "stream/part.h"

namespace sluice::convert {
namespace {

constexpr uint64_t kJobBytesMax = 256ull << 20;

}  // namespace

std::string parts_path(const std::string& out) { return output_name(out) + ".parts.json"; }

Result<PartsJob> read_parts_job(io::Storage& storage, const std::string& out) {
  const std::string path = parts_path(out);
  SLUICE_ASSIGN(const auto source, storage.open_source(path));
  SLUICE_ASSIGN(const std::string text, io::read_text(*source, kJobBytesMax));
  SLUICE_ASSIGN(const Json json, parse_json(text, path));
  SLUICE_ASSIGN(const int64_t version, json_int(json, "version", 0, INT32_MAX, path));
  if (version != 1) return fail(ErrorCode::kUnsupported, "{}: version {} is not 1", path, version);
  SLUICE_ASSIGN(const std::string model, json_string(json, "model", path));
  SLUICE_ASSIGN(const int64_t parts, json_int(json, "parts", 2, stream::kPartsMax, path));
  SLUICE_ASSIGN(const Json* plan_json, json_object(json, "plan", path));
  SLUICE_ASSIGN(allocate::Plan plan, allocate::plan_from_json(dump_json(*plan_json), path));
  return PartsJob{model, static_cast<uint32_t>(parts), std::move(plan)};
}

Status agree_on_parts_job(io::Storage& storage, const std::string& out, const PartsJob& job,
                          uint32_t part_index) {
  const std::string path = parts_path(out);
  const std::string unfinished = stream::part_path(path, {part_index, job.parts});
  // An earlier run of this part may have been killed here, after which another part was first.
  for (const std::string& leftover : {unfinished, unfinished + std::string(io::kUnfinishedSuffix)})
    if (storage.exists(leftover)) SLUICE_TRY(storage.remove(leftover));
  if (!storage.exists(path)) {
    SLUICE_ASSIGN(Json plan, parse_json(allocate::plan_to_json(job.plan), path));
    const Json json = {
        {"version", 1}, {"model", job.model}, {"parts", job.parts}, {"plan", std::move(plan)}};
    // Parts that start together replace each other's file with the same bytes.
    SLUICE_TRY(io::write_file_atomically(storage, unfinished, dump_json(json) + "\n"));
    SLUICE_TRY(storage.rename(unfinished, path));
    SLUICE_TRY(storage.sync_directory(io::parent_folder(path)));
  }
  SLUICE_ASSIGN(const PartsJob found, read_parts_job(storage, out));
  if (found.parts != job.parts)
    return fail(ErrorCode::kInvalidArgument,
                "{} was begun in {} parts, not in {}; remove it and {} to start anew",
                partial_path(out), found.parts, job.parts, path);
  if (found.plan.digest() != job.plan.digest())
    return fail(ErrorCode::kInvalidArgument,
                "{} was begun from another plan; remove it and {} to start anew", partial_path(out),
                path);
  return {};
}

}  // namespace sluice::convert
