#include "cli/doctor.h"

#include <sys/resource.h>

#include <algorithm>
#include <cmath>

#include "allocate/devices.h"
#include "base/clock.h"
#include "base/units.h"
#include "kernels/kernel_table.h"

namespace sluice::cli {
namespace {

constexpr double kProbeSeconds = 1;
constexpr double kPricingSeconds = 0.2;
constexpr double kEstimateBytes = 10e9;
constexpr uint64_t kWeightBytes = 2;  // of the usual checkpoint
constexpr size_t kRowElements = 4096;

constexpr uint64_t kDescriptorsMin = 1024;
constexpr uint64_t kMemoryMin = 512ull << 20;
constexpr uint64_t kFreeMin = 10'000'000'000;
constexpr double kSlowDisk = 200e6;

// A row like a model's: zeros at no place, and no two groups alike.
std::vector<float> sample_row() {
  std::vector<float> row(kRowElements);
  for (size_t i = 0; i < row.size(); ++i)
    row[i] = 0.05f * std::sin(static_cast<float>(i) * 1.7f) + 0.001f * static_cast<float>(i % 13);
  return row;
}

// What analysis does to every row, on one thread.
double weights_per_s_of_one(SimdLevel level) {
  const kernels::KernelTable& table = kernels::kernel_table(level);
  const std::vector<float> row = sample_row();
  std::vector<numerics::QuantFormat> affine, fp;
  for (const numerics::QuantFormat& format : kernels::default_best_formats())
    (format.mode == numerics::QuantMode::kAffine ? affine : fp).push_back(format);
  std::vector<numerics::BestPrice> prices(affine.size());
  double error = 0;
  uint64_t weights = 0;
  const Stopwatch watch;
  while (watch.seconds() < kPricingSeconds) {
    static_cast<void>(table.price_affine(row, numerics::DType::kBF16));
    table.price_best(row, affine, numerics::DType::kBF16, prices);
    static_cast<void>(table.price_fp(row, numerics::DType::kBF16));
    for (const numerics::QuantFormat& format : fp)
      error += table.encode_fp_best(row, format, numerics::DType::kBF16, {}).squared_error;
    error += prices.front().squared_error;
    weights += row.size();
  }
  const double seconds = watch.seconds();
  return error >= 0 && seconds > 0 ? static_cast<double>(weights) / seconds : 0;
}

// The profile of this kind of machine with the nearest memory, and its share for a model.
void add_profile(Diagnosis& found) {
#if defined(__APPLE__)
  constexpr std::string_view kKind = "mac";
#else
  constexpr std::string_view kKind = "plain";
#endif
  const double memory = static_cast<double>(found.memory.usable());
  if (memory <= 0) return;
  double nearest = INFINITY;
  for (const allocate::DeviceProfile& device : allocate::builtin_devices()) {
    const double distance = std::abs(std::log(static_cast<double>(device.memory_bytes) / memory));
    if (device.kind != kKind || distance >= nearest) continue;
    nearest = distance;
    found.profile = device.name;
    found.model_bytes = static_cast<uint64_t>(memory * static_cast<double>(device.usable_bytes) /
                                              static_cast<double>(device.memory_bytes));
  }
}

DiskCheck check_disk(Context& context, const std::string& path) {
  DiskCheck disk;
  disk.path = path;
  const std::vector<io::DiskPath> paths(std::begin(io::kDiskPaths), std::end(io::kDiskPaths));
  if (auto probes = io::probe_disk(path, paths, kProbeSeconds))
    disk.probes = std::move(*probes);
  else
    disk.error = probes.error().message;
  if (const auto free = context.storage->free_bytes(path)) disk.free_bytes = *free;
  return disk;
}

void warn_of_disk(const DiskCheck& disk, std::vector<std::string>& warnings) {
  if (!disk.error.empty()) {
    warnings.push_back(disk.error);
    return;
  }
  const io::DiskProbe& best = disk.fastest();
  if (best.bytes_per_s() < kSlowDisk)
    warnings.push_back(fmt::format(
        "{} reads at {}/s: preparing a model takes as long as reading it, twice or three times",
        disk.path, bytes_text(static_cast<uint64_t>(best.bytes_per_s()))));
  if (std::ranges::none_of(disk.probes, &io::DiskProbe::past_cache))
    warnings.push_back(fmt::format(
        "{} offers no reads past the page cache: the rate may be the cache's, and large models "
        "push other programs' files out of memory",
        disk.path));
  if (disk.free_bytes > 0 && disk.free_bytes < kFreeMin)
    warnings.push_back(fmt::format("{} has {} free", disk.path, bytes_text(disk.free_bytes)));
}

}  // namespace

// Whichever reads past the cache: what is in memory already says nothing about a disk.
const io::DiskProbe& DiskCheck::fastest() const {
  return *std::ranges::max_element(probes, {}, [](const io::DiskProbe& probe) {
    return std::pair(probe.past_cache(), probe.bytes_per_s());
  });
}

double Diagnosis::disk_seconds(const DiskCheck& disk) const {
  const double rate = disk.fastest().bytes_per_s();
  return rate > 0 ? kEstimateBytes / rate : 0;
}

double Diagnosis::pricing_seconds() const {
  return weights_per_s > 0 ? kEstimateBytes / kWeightBytes / weights_per_s : 0;
}

std::vector<std::string> warnings_of(const Diagnosis& found) {
  std::vector<std::string> warnings;
  if (found.used == SimdLevel::kScalar)
    warnings.emplace_back("no SIMD in use: everything that computes is many times slower");
  else if (found.compiled != found.offered)
    warnings.push_back(fmt::format("the processor offers {}, which this program was built without",
                                   simd_level_name(found.offered)));
  if (found.descriptors > 0 && found.descriptors < kDescriptorsMin)
    warnings.push_back(fmt::format(
        "only {} open files are allowed: models of more shards than that fail; see ulimit -n",
        found.descriptors));
  const uint64_t available = found.memory.available == 0
                                 ? found.memory.usable()
                                 : std::min(found.memory.available, found.memory.usable());
  if (available > 0 && available < kMemoryMin)
    warnings.push_back(
        fmt::format("only {} of memory are available; every stage of preparation "
                    "takes up to 256 MB",
                    bytes_text(available)));
  for (const DiskCheck& disk : found.disks) warn_of_disk(disk, warnings);
  return warnings;
}

Diagnosis diagnose(Context& context, std::span<const std::string> paths) {
  Diagnosis found;
  found.system = system_name();
  found.processor = processor_name();
  found.cores = context.cpu.cores;
  found.offered = context.cpu.simd;
  found.compiled = kernels::kernel_table(context.cpu.simd).level();
  found.used = kernels::kernel_table(context.simd).level();
  found.memory = detect_memory();
  found.gpu = gpu::gpu_facts();
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    found.descriptors = limit.rlim_cur;
    found.descriptors_max = limit.rlim_max;
  }
  found.weights_per_s = weights_per_s_of_one(context.simd) * context.workers;
  add_profile(found);
  for (const std::string& path : paths) found.disks.push_back(check_disk(context, path));
  found.warnings = warnings_of(found);
  return found;
}

}  // namespace sluice::cli
