// What `sluice doctor` finds out: the machine, its disks, how fast it prices weights, what follows
// from that, and what will bite.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/machine.h"
#include "cli/context.h"
#include "gpu/gpu_device.h"
#include "io/disk_probe.h"

namespace sluice::cli {

struct DiskCheck {
  std::string path;                   // as given
  std::vector<io::DiskProbe> probes;  // when error is empty, at least one
  const io::DiskProbe& fastest() const;
  uint64_t free_bytes = 0;
  std::string error;
};

struct Diagnosis {
  std::string system, processor;
  unsigned cores = 0;
  SimdLevel offered = SimdLevel::kScalar;   // by the processor
  SimdLevel compiled = SimdLevel::kScalar;  // the widest of those that this program has
  SimdLevel used = SimdLevel::kScalar;      // --simd counted
  MemoryInfo memory;
  std::optional<gpu::GpuFacts> gpu;               // nothing in a program without MLX
  uint64_t descriptors = 0, descriptors_max = 0;  // this process's limit, and how far it may go
  double weights_per_s = 0;                       // priced in every format by all workers together
  std::vector<DiskCheck> disks;

  std::string profile;       // the device profile whose memory is nearest
  uint64_t model_bytes = 0;  // what a model may take of this memory, by that profile's measure
  std::vector<std::string> warnings;

  // Of 10 GB of 16-bit weights from that disk; 0: not known.
  double disk_seconds(const DiskCheck& disk) const;
  double pricing_seconds() const;
};

// paths: files or folders to measure; takes about a second for each.
Diagnosis diagnose(Context& context, std::span<const std::string> paths);

// What is worth a warning in what was found.
std::vector<std::string> warnings_of(const Diagnosis& diagnosis);

}  // namespace sluice::cli
