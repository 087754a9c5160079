// Writes the logits of every given token as raw f32, for mlx_lm_test.py, and prints the engine's
// notes.
//   runtime_logits_export [--weights=BYTES_MAX] [--device=cpu|mlx] MODEL OUT CHUNK auto|f32|i8
//   transformers|mlx
//     TOKEN...
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/thread_pool.h"
#include "gpu/gpu_device.h"
#include "runtime/step_backend.h"

namespace {

using namespace sluice;

Status run(const std::vector<std::string>& arguments, uint64_t weight_bytes_max,
           std::string_view device) {
  runtime::EngineOptions options;
  SLUICE_ASSIGN(const gpu::DeviceChoice choice, gpu::parse_device(device));
  SLUICE_ASSIGN(options.device, gpu::open_device(choice, detect_cpu().simd));
  options.weight_bytes_max = weight_bytes_max;
  options.kv = runtime::KvType::kF32;
  options.simd = detect_cpu().simd;
  options.chunk_tokens = std::stoul(arguments[2]);
  SLUICE_ASSIGN(options.activations, runtime::parse_activations(arguments[3]));
  SLUICE_ASSIGN(options.compat, runtime::parse_compat(arguments[4]));
  std::vector<uint32_t> tokens;
  for (size_t i = 5; i < arguments.size(); ++i)
    tokens.push_back(static_cast<uint32_t>(std::stoul(arguments[i])));
  ThreadPool pool(2);
  NullLog log;
  NullProgress progress;
  SLUICE_ASSIGN(const auto engine,
                runtime::Engine::open(arguments[0], options, pool, log, progress));
  for (const std::string& note : engine->info().notes) std::printf("%s\n", note.c_str());
  runtime::Session session = engine->new_session();
  std::FILE* out = std::fopen(arguments[1].c_str(), "wb");
  SLUICE_CHECK(out != nullptr);
  const runtime::Feed feed{.session = &session, .tokens = tokens, .logits_count = tokens.size()};
  const Status status =
      engine->step(std::span(&feed, 1), [&](size_t, size_t, std::span<const float> logits) {
        SLUICE_CHECK(std::fwrite(logits.data(), 4, logits.size(), out) == logits.size());
      });
  SLUICE_CHECK(std::fclose(out) == 0);
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  uint64_t weight_bytes_max = 0;
  constexpr std::string_view kWeights = "--weights=";
  if (!arguments.empty() && arguments[0].starts_with(kWeights)) {
    weight_bytes_max = std::stoull(arguments[0].substr(kWeights.size()));
    arguments.erase(arguments.begin());
  }
  std::string device = "cpu";
  constexpr std::string_view kDevice = "--device=";
  if (!arguments.empty() && arguments[0].starts_with(kDevice)) {
    device = arguments[0].substr(kDevice.size());
    arguments.erase(arguments.begin());
  }
  if (arguments.size() < 6) return 2;
  const Status status = run(arguments, weight_bytes_max, device);
  if (status) return 0;
  std::fprintf(stderr, "%s\n", status.error().message.c_str());
  return 1;
}
