// The reads and writes of preparation without its computing: the same blocks through the same
// engine, storage and checkpoints, shown to visitors that do nothing with them. What a command
// takes beyond this is its computing. Used by run.py.
//
//   stream_bench read MODEL [WORKERS]           the reads of analyze
//   stream_bench verify MODEL OUT [WORKERS]     the reads of verify: the source and an output of it
//   stream_bench write MODEL OUT COPY [WORKERS] the reads and writes of quantize: COPY gets files
//   of
//                                               OUT's layout, filled with bytes of the source
#include <cstdio>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "convert/checkpointer.h"
#include "convert/convert.h"
#include "families/recipe.h"
#include "io/safetensors.h"
#include "kernels/decode.h"
#include "stream/stream.h"

namespace sluice {
namespace {

using families::OutputModule;

// An output's weight files, and where each module's tensors lie in them.
struct Output {
  std::vector<std::string> names;
  std::vector<std::shared_ptr<io::ByteSource>> files;
  std::vector<std::vector<io::StoredTensor>> tensors;  // per module
};

Result<Output> open_output(io::Storage& storage, const std::string& folder,
                           const families::ModelMap& map) {
  Output output;
  std::map<std::string, io::StoredTensor> by_name;
  SLUICE_ASSIGN(const auto names, storage.list_directory(folder));
  for (const std::string& name : names) {
    if (!name.ends_with(".safetensors")) continue;
    SLUICE_ASSIGN(auto source, storage.open_source(folder + "/" + name));
    SLUICE_ASSIGN(const auto header,
                  io::read_safetensors_header(*source, static_cast<uint32_t>(output.files.size())));
    for (const io::StoredTensor& tensor : header.tensors) by_name[tensor.info.name] = tensor;
    output.names.push_back(name);
    output.files.push_back(std::move(source));
  }
  for (const OutputModule& module : map.modules) {
    auto& found = output.tensors.emplace_back();
    for (const std::string& name :
         {module.tensor_name(), module.path + ".scales", module.path + ".biases"})
      if (const auto tensor = by_name.find(name); tensor != by_name.end())
        found.push_back(tensor->second);
    if (found.empty())
      return fail(ErrorCode::kNotFound, "{}: holds no {}", folder, module.tensor_name());
  }
  return output;
}

uint64_t bytes_per_row(const io::StoredTensor& tensor, const OutputModule& module) {
  return tensor.bytes / std::max<uint64_t>(1, module.rows());
}

// Reads the source, and the output if there is one.
class Reader : public stream::Visitor {
 public:
  explicit Reader(const Output* output) : output_(output) {}
  bool wants_values(const OutputModule&) const override { return false; }
  void list_companions(const OutputModule& module, const stream::Block& block,
                       std::vector<stream::ByteRange>& ranges) const override {
    if (output_ == nullptr) return;
    for (const io::StoredTensor& tensor : output_->tensors[block.module]) {
      const uint64_t row = bytes_per_row(tensor, module);
      ranges.push_back({output_->files[tensor.file].get(), tensor.offset + block.first_row * row,
                        block.rows * row, tensor.info.name});
    }
  }
  Status visit(const stream::RowBlock&, unsigned) override { return {}; }
  Status finish_module(uint32_t) override { return {}; }

 private:
  const Output* output_;
};

// Writes as many bytes as conversion does, at the same places and through the same checkpoints.
class Writer : public stream::Visitor {
 public:
  Writer(const Output& output, std::span<const std::unique_ptr<io::WritableFile>> files,
         convert::Checkpointer& checkpointer)
      : output_(output), files_(files), checkpointer_(checkpointer) {}
  bool wants_values(const OutputModule&) const override { return false; }
  Status visit(const stream::RowBlock& block, unsigned) override {
    uint64_t written = 0;
    for (const io::StoredTensor& tensor : output_.tensors[block.block.module]) {
      const uint64_t row = bytes_per_row(tensor, block.module);
      const auto bytes = block.source.first(std::min(block.source.size(), block.block.rows * row));
      SLUICE_TRY(files_[tensor.file]->write_at(tensor.offset + block.block.first_row * row, bytes));
      written += bytes.size();
    }
    checkpointer_.wrote(output_.tensors[block.block.module][0].file, written);
    return {};
  }
  Status finish_module(uint32_t module) override {
    uint64_t bytes = 0;
    for (const io::StoredTensor& tensor : output_.tensors[module]) bytes += tensor.bytes;
    return checkpointer_.add(module, {}, bytes);
  }

 private:
  const Output& output_;
  const std::span<const std::unique_ptr<io::WritableFile>> files_;
  convert::Checkpointer& checkpointer_;
};

struct Job {
  std::unique_ptr<io::Storage> storage = io::local_storage();
  std::shared_ptr<const io::Checkpoint> checkpoint;
  families::ModelMap map;
  std::vector<uint32_t> modules;
  unsigned workers = 1;

  Status stream(stream::Visitor& visitor) const {
    stream::StreamOptions options;
    options.workers = workers;
    options.decode =
        kernels::source_decoders<stream::SourceDecoders>(kernels::kernel_table(SimdLevel::kScalar));
    return stream::stream_modules(*checkpoint, map, modules, visitor, options);
  }
};

Status write_copy(const Job& job, const Output& output, const std::string& copy) {
  SLUICE_TRY(job.storage->create_directory(copy));
  std::vector<std::unique_ptr<io::WritableFile>> files;
  for (size_t i = 0; i < output.files.size(); ++i) {
    SLUICE_ASSIGN(auto file,
                  job.storage->open(copy + "/" + output.names[i], io::OpenMode::kCreateNew));
    SLUICE_TRY(file->allocate(output.files[i]->size()));
    files.push_back(std::move(file));
  }
  stream::OutputLayout layout;
  layout.shards.resize(files.size());
  for (const auto& tensors : output.tensors) layout.places.push_back({tensors[0].file});
  SLUICE_ASSIGN(const auto journal, io::Journal::open(*job.storage, copy + "/journal",
                                                      [](const Json&) { return Status(); }));
  std::vector<std::optional<convert::ModuleResult>> results(job.modules.size());
  convert::Checkpointer checkpointer(layout, files, *journal, results,
                                     convert::ConvertOptions().bytes_per_checkpoint);
  Writer writer(output, files, checkpointer);
  SLUICE_TRY(job.stream(writer));
  SLUICE_TRY(checkpointer.finish());
  for (const auto& file : files) SLUICE_TRY(file->sync());
  return job.storage->sync_directory(copy);
}

Status run(const std::vector<std::string>& words) {
  const std::string& what = words[0];
  const size_t paths = what == "read" ? 1 : what == "verify" ? 2 : 3;
  if (words.size() < paths + 1)
    return fail(ErrorCode::kInvalidArgument, "{} needs {} paths", what, paths);
  Job job;
  job.workers = words.size() > paths + 1 ? static_cast<unsigned>(std::stoul(words[paths + 1]))
                                         : std::max(1u, std::thread::hardware_concurrency());
  SLUICE_ASSIGN(job.checkpoint, io::open_checkpoint(words[1]));
  SLUICE_ASSIGN(job.map, families::map_model(*job.checkpoint, ""));
  for (uint32_t i = 0; i < job.map.modules.size(); ++i) job.modules.push_back(i);
  Output output;
  if (paths > 1) {
    SLUICE_ASSIGN(output, open_output(*job.storage, words[2], job.map));
  }
  if (what == "write") return write_copy(job, output, words[3]);
  Reader reader(what == "verify" ? &output : nullptr);
  return job.stream(reader);
}

}  // namespace
}  // namespace sluice

int main(int count, char** arguments) {
  const std::vector<std::string> words(arguments + 1, arguments + count);
  if (words.empty() || (words[0] != "read" && words[0] != "verify" && words[0] != "write")) {
    std::fprintf(stderr, "stream_bench read MODEL | verify MODEL OUT | write MODEL OUT COPY\n");
    return 2;
  }
  const sluice::Stopwatch watch;
  if (const auto status = sluice::run(words); !status) {
    std::fprintf(stderr, "stream_bench: %s\n", status.error().message.c_str());
    return 1;
  }
  std::printf("{\"seconds\": %.6f}\n", watch.seconds());
  return 0;
}
