// What the tests of analysis share: an analysis in storage in memory, and its file as text.
#pragma once

#include <string>
#include <vector>

#include "analyze/analyze.h"
#include "support/models.h"
#include "support/plans.h"

namespace sluice::test {

inline const std::string kFile = "work/model.analysis";

struct Subject {
  std::shared_ptr<const io::Checkpoint> checkpoint;
  families::ModelMap map;
};

inline Subject subject_of(const ModelBuilder& model, std::string_view dtype = "",
                          const WrapSource& wrap = {}) {
  auto checkpoint = model.build(wrap);
  families::ModelMap map = map_of(*checkpoint, dtype);
  return {std::move(checkpoint), std::move(map)};
}

inline analyze::AnalyzeOptions analyze_options(unsigned workers = 2) {
  analyze::AnalyzeOptions options;
  options.best_formats = {affine(3, 32), affine(4, 64), numerics::kFpFormats[0],
                          numerics::kFpFormats[2]};
  options.workers = workers;
  options.simd = widest_simd();
  return options;
}

inline void put(io::MemoryStorage& storage, const std::string& path, std::string_view text) {
  auto file = storage.open(path, io::OpenMode::kCreateOrOpen);
  SLUICE_CHECK(file.has_value() && (*file)->truncate(0).has_value());
  SLUICE_CHECK((*file)->append(std::as_bytes(std::span(text))).has_value());
}

inline std::string get(io::MemoryStorage& storage, const std::string& path) {
  return *io::read_text(**storage.open_source(path), UINT64_MAX);
}

inline Result<analyze::Analysis> analyze_into(io::Storage& storage, const Subject& subject,
                                              const analyze::AnalyzeOptions& options) {
  return analyze::analyze(storage, *subject.checkpoint, subject.map, kFile, options);
}

// The text of an undisturbed analysis.
inline std::string analyzed_text(const Subject& subject) {
  io::MemoryStorage storage;
  make_work_folder(storage);
  const auto analysis = analyze_into(storage, subject, analyze_options());
  if (!analysis) fmt::print(stderr, "{}\n", analysis.error().message);
  SLUICE_CHECK(analysis.has_value());
  return get(storage, kFile);
}

}  // namespace sluice::test
