// Writes a complete analysis file for a checkpoint without reading a single weight: exact bytes of
// every candidate, and errors that fall with the bits and differ from module to module. For tests
// of planning at sizes that nobody can analyze in a test.
//
//   fabricate_analysis MODEL OUT
#include <cmath>
#include <cstdio>

#include "analyze/analysis.h"
#include "families/recipe.h"
#include "io/checkpoint.h"
#include "io/journal.h"
#include "io/storage.h"

namespace sluice {
namespace {

using allocate::Candidate;
using numerics::Encoder;
using numerics::QuantFormat;
using numerics::QuantMode;

// Weights of variance 10⁻⁴; noise falls by 6 dB a bit and rises with the group.
Candidate candidate(const QuantFormat& format, const families::OutputModule& module,
                    numerics::DType dtype, double level) {
  Candidate made;
  made.format = format;
  made.bytes = numerics::encoded_bytes(format, module.shape, dtype).total();
  const double weight = 1e-4 * static_cast<double>(module.elements());
  double noise = 1e-6;
  if (format.mode == QuantMode::kAffine) {
    made.encoder = Encoder::kParity;
    noise = level * std::pow(0.25, format.bits) * std::pow(format.group_size / 64.0, 0.25);
  }
  made.error = {weight * noise, weight, 1};
  made.worst_expert_sqnr_db = made.worst_row_sqnr_db = -10 * std::log10(noise);
  return made;
}

analyze::ModuleRecord record_of(const io::Checkpoint& checkpoint, const families::ModelMap& map,
                                size_t index) {
  const families::OutputModule& module = map.modules[index];
  analyze::ModuleRecord record;
  record.item.path = module.path;
  record.item.parameter = module.parameter;
  record.item.role = role_name(module.role);
  record.item.layer = module.layer;
  record.item.elements = module.elements();
  record.item.bits_floor = module.bits_floor;
  record.item.quantizable = module.quantizable;
  record.shape = module.shape;
  record.plain_dtype = stream::plain_dtype(checkpoint, map, module);
  record.item.candidates.push_back(candidate({}, module, record.plain_dtype, 0));
  const double level = 0.5 + static_cast<double>(index * 2654435761u % 1000) / 500;
  for (const uint8_t bits : numerics::kAffineBits)
    for (const uint16_t group : numerics::kAffineGroups)
      if (const QuantFormat format{QuantMode::kAffine, bits, group};
          module.quantizable && can_encode(format, module.shape))
        record.item.candidates.push_back(candidate(format, module, map.dtype, level));
  return record;
}

Status fabricate(const std::string& model, const std::string& out) {
  SLUICE_ASSIGN(const auto checkpoint, io::open_checkpoint(model));
  SLUICE_ASSIGN(const families::ModelMap map, families::map_model(*checkpoint, ""));
  const auto storage = io::local_storage();
  SLUICE_ASSIGN(const auto journal, io::Journal::open(*storage, out, [](const Json&) -> Status {
                  return fail(ErrorCode::kInvalidArgument, "the output exists already");
                }));
  analyze::AnalysisHeader header;
  header.source = checkpoint->identity_digest();
  header.family = map.family;
  header.dtype = map.dtype_name;
  header.layers = map.layers;
  header.modules = map.modules.size();
  SLUICE_TRY(journal->append(header_to_json(header)));
  for (size_t i = 0; i < map.modules.size(); ++i)
    SLUICE_TRY(journal->append(record_to_json(record_of(*checkpoint, map, i))));
  SLUICE_TRY(journal->append({{"complete", true}}));
  return journal->sync();
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("usage: fabricate_analysis MODEL OUT\n", stderr);
    return 2;
  }
  const auto status = sluice::fabricate(argv[1], argv[2]);
  if (status) return 0;
  std::fprintf(stderr, "%s\n", status.error().message.c_str());
  return 1;
}
