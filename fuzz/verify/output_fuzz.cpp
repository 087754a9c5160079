// An output of which one small file holds the input: the first byte says which. Verification finds
// something or says why it cannot, unless the file means what it meant before.
#include <string>
#include <string_view>

#include "allocation_bound.h"
#include "base/sealed_json.h"
#include "verify/output.h"
#include "verify/outputs.h"

namespace {

using namespace sluice;

// A good output in a real folder, and its files.
struct Good {
  Good() : job(test::job_of(test::tiny_llama({.vocab = 2, .layers = 1}))) {
    files = test::converted(job);
    test::write_files(folder.path(), files);
    for (const auto& [name, text] : files) bytes += text.size();
  }
  test::Job job;
  test::Files files;
  size_t bytes = 0;
  test::TemporaryFolder folder;
};

const Good& good() {
  static const Good output;
  return output;
}

// The real folder, but for one file.
class Replaced : public io::Storage {
 public:
  Replaced(std::string path, std::string_view text) : path_(std::move(path)) {
    const auto bytes = std::as_bytes(std::span(text));
    source_ = io::memory_source(path_, {bytes.begin(), bytes.end()});
  }
  Result<std::shared_ptr<io::ByteSource>> open_source(const std::string& path) override {
    if (path == path_) return source_;
    return base_->open_source(path);
  }
  bool exists(const std::string& path) override { return base_->exists(path); }
  // Verification writes nothing.
  Result<std::unique_ptr<io::WritableFile>> open(const std::string&, io::OpenMode) override {
    return refuse();
  }
  Status create_directory(const std::string&) override { return refuse(); }
  Status rename(const std::string&, const std::string&) override { return refuse(); }
  Status remove(const std::string&) override { return refuse(); }
  Status sync_directory(const std::string&) override { return refuse(); }
  Result<uint64_t> free_bytes(const std::string&) override { return refuse(); }
  Result<std::unique_ptr<io::LockFile>> lock(const std::string&) override { return refuse(); }

 private:
  static std::unexpected<Error> refuse() {
    return fail(ErrorCode::kIo, "verification must not write");
  }
  const std::unique_ptr<io::Storage> base_ = io::local_storage();
  const std::string path_;
  std::shared_ptr<io::ByteSource> source_;
};

// sluice.json as this version spells it, with its own digest and the plan's mended.
std::string mended_record(std::string_view text) {
  auto json = parse_json(text, "fuzz");
  if (!json) return std::string(text);
  if (const Json* plan = json_find(*json, "plan")) {
    const auto parsed = allocate::plan_from_json(dump_json(*plan), "fuzz");
    constexpr std::string_view kFound = ", found ";
    if (!parsed) {
      const size_t place = parsed.error().message.rfind(kFound);
      if (place != std::string::npos &&
          parsed.error().message.find("does not match its digest") != std::string::npos)
        (*json)["plan"]["digest"] = parsed.error().message.substr(place + kFound.size(), 32);
    }
  }
  return dump_json(json->is_object() ? sealed(*json) : *json, 1) + "\n";
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view names[] = {"sluice.json", "config.json", "model.safetensors.index.json"};
  const std::string_view name = names[data[0] % std::size(names)];
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::string& out = good().folder.path();
  // The output's own tensors and files, and what mends the input for the first look.
  const fuzz::AllocationBound bound(size + good().bytes);
  Replaced storage(fmt::format("{}/{}", out, name),
                   name == "sluice.json" ? mended_record(text) : std::string(text));
  const auto record = verify::read_record(storage, out);
  if (!record) return 0;
  verify::Findings findings;
  const auto output = verify::open_output(storage, out, record->json, findings);
  SLUICE_CHECK(output.has_value());
  check_loader_rules(*output, record->json, *good().job.checkpoint, good().job.map, record->plan,
                     findings);
  uint64_t count = 0;
  (void)findings.take(&count);
  if (count > 0 || name == "sluice.json") return 0;
  const auto found = parse_json(text, "fuzz");
  SLUICE_CHECK(found.has_value());
  SLUICE_CHECK(*found == *parse_json(good().files.at(std::string(name)), "good"));
  return 0;
}
