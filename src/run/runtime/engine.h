// The one header for those who run a model, together with the sampler that it brings. An Engine is
// an opened model, immutable but for the scratch of a step; a Session is one timeline over it:
// tokens and their keys and values. How the weights lie in memory, which kernels multiply them and
// how a batch is cut into chunks stays behind it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/cpu.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/thread.h"
#include "base/thread_pool.h"
#include "kernels/layer_types.h"
#include "model/compat.h"
#include "runtime/sampler/sampler.h"

namespace sluice::io {
class ByteSource;
struct Checkpoint;
}  // namespace sluice::io

namespace sluice::runtime {

struct ExpertTrace;
class Device;

using kernels::KvType;  // kF32, kF16, kQ8, kQ4: how keys and values are kept

// "f32", "f16", "q8", "q4".
Result<KvType> parse_kv_type(std::string_view name);
std::string_view kv_type_name(KvType type);

// How precisely activations enter products: auto goes by the weight's format and role only.
enum class ActivationChoice : uint8_t { kAuto, kF32, kI8 };
Result<ActivationChoice> parse_activations(std::string_view name);  // "auto", "f32", "i8"

// How weights that do not stay are read: through a ring of the kernel's (io_uring) or by threads;
// auto takes the ring where the system has one.
enum class ReadPath : uint8_t { kAuto, kRing, kThreads };
Result<ReadPath> parse_read_path(std::string_view name);  // "auto", "io_uring", "threads"

// Whose formula holds where mlx_lm departs from transformers (docs/families.md).
using model::Compat;                                 // kTransformers, kMlx
Result<Compat> parse_compat(std::string_view name);  // "transformers", "mlx"

struct EngineOptions {
  // Tokens that a session may hold; 0: the model's own limit, at most kContextDefaultMax.
  size_t context = 0;
  size_t sessions_max = 1;  // whose keys and values memory is set aside for
  KvType kv = KvType::kF16;
  ActivationChoice activations = ActivationChoice::kAuto;
  Compat compat = Compat::kTransformers;
  // What computes (runtime/step_backend.h); null: the processor, whose results are the same bits
  // whatever is computed together. A device's are so but for rounding: what it adds up in which
  // order may follow from the rows of a step.
  std::shared_ptr<const Device> device = {};
  // Rows that go through the model together; lowered where scratch would exceed kScratchBytes.
  size_t chunk_tokens = 512;
  // Rows of logits that are computed together; lowered where they would take more than
  // kLogitsBytes. Evaluation wants many, generation as many as it guesses ahead.
  size_t logits_rows = 64;
  SimdLevel simd = SimdLevel::kScalar;  // from detect_cpu(), or parse_simd_level()
  // The most bytes that the process may take; 0: what machine and cgroup can hold. What of the
  // weights does not fit is read from disk whenever it is used.
  uint64_t memory_bytes_max = 0;
  // The most that weights alone may take, and the size of the windows through which they are read;
  // 0: chosen. For tests and measurements.
  uint64_t weight_bytes_max = 0, window_bytes = 0;
  ReadPath reads = ReadPath::kAuto;
  // Whatever is read of the weights is held against digests of the files' pages, which are taken
  // once (Engine::keep_digests()): wrong bytes end a step with kCorrupt, and are never computed
  // with.
  bool verify_reads = false;
  // In decoding, reads what the next layer's router would choose now, before its turn.
  bool lookahead = true;
  // What the rest of the process and scratch should take together: scratch, at most kScratchBytes,
  // is given what the process leaves, but at least kScratchBytesMin. 0: no such bound.
  uint64_t besides_bytes_max = 0;
  // What the process will take beside for each token of context: a conversation's text is encoded
  // anew while keys and values are there. Counted as the program's.
  uint64_t program_bytes_token = 0;
  // What the process, other engines in it included, was promised beside this one; counted as the
  // program's where it holds less for now.
  uint64_t program_bytes_min = 0;
  // The same for each token of the vocabulary: samplers, and what holds an answer to a grammar.
  uint64_t program_bytes_word = 0;
};

inline constexpr size_t kContextDefaultMax = 4096;
inline constexpr uint64_t kLogitsBytes = 16'000'000;
inline constexpr uint64_t kScratchBytes = 48'000'000;
inline constexpr uint64_t kScratchBytesMin = 8'000'000;  // below this, chunks get too short

// What running takes, known before a weight is read. Bytes.
struct MemoryNeed {
  uint64_t weights = 0;  // that stay, and room for those that are read as they are used
  uint64_t kv = 0;       // of sessions_max sessions at full context
  uint64_t states = 0;   // recurrent states of as many
  uint64_t scratch = 0;  // activations, logits and the kernels' own
  uint64_t program = 0;  // what this process held before (code, tokenizer), and encoding takes
  uint64_t digests = 0;  // of the files' pages, where reads are verified
  uint64_t draft = 0;    // a second model that guesses ahead of this one: Engine::share_with()
  uint64_t total() const { return weights + kv + states + scratch + program + digests + draft; }
};

// What reading weights as they are used came to, since load().
struct StreamStatistics {
  uint64_t bytes_read = 0;     // of weights, from disk
  uint64_t bytes_fetched = 0;  // for them, in whole pages
  // Experts that steps asked for, one for each layer and step, and how many of them were in memory.
  uint64_t experts_requested = 0, experts_there = 0;
  uint64_t guesses = 0, guesses_right = 0;  // experts read ahead of their layer, and used there
};

// Multiplications of a weight with an activation, by what activations were rounded to.
struct ProductCounts {
  uint64_t f32 = 0, i16 = 0, i8 = 0;
};

// A share of recent tokens that used it, for every expert of each layer that has some.
using ExpertShares = std::vector<std::vector<double>>;

struct ModelInfo {
  std::string path;
  std::string family;             // "llama", "qwen3_moe", …
  std::string storage;            // what most of the weights are stored as: "MLX 4/64", "Q4_K"
  uint64_t parameters = 0;        // of all tensors used
  uint64_t weight_bytes = 0;      // of all of them
  uint64_t read_bytes_token = 0;  // weights that one token's decode reads, keys and values not in
  uint64_t disk_bytes_token = 0;  // of them from disk, were experts chosen evenly
  double experts_there = 1;       // share of all experts that is in memory at a time
  uint64_t kv_bytes_token = 0;    // of one token, in all layers
  uint64_t state_bytes = 0;       // of a recurrent state, whatever the context; 0: there is none
  size_t layers = 0;
  size_t hidden_size = 0;     // values of a token's state between layers
  size_t vocabulary = 0;      // rows of logits; may exceed the tokenizer's
  size_t context_model = 0;   // max_position_embeddings; 0 where the configuration is silent
  size_t context = 0;         // of a session
  Compat compat{};            // as opened: sessions are bound to it too
  size_t rope_length = 0;     // numerics::rope_length: keys of another one do not fit these
  size_t chunk_tokens = 0;    // as lowered by load()
  Digest identity;            // of configuration and weights' headers; sessions are bound to it
  std::vector<uint32_t> eos;  // ids that end a generation
  std::optional<uint32_t> bos;
  std::string device;              // what computes; empty: the processor
  std::vector<std::string> notes;  // sentences worth showing: tensors decoded at load, …
};

// What is about to be multiplied by some weights: rows · columns values, the same for all of them.
// Valid during the call.
struct ProductInput {
  std::span<const std::string_view> weights;  // their tensors' names
  std::span<const float> values;
  size_t columns = 0;
  // Of stacked experts, whose rows these are alone; none where every expert takes its rows of them.
  std::optional<uint32_t> expert;
};
// Called on the stepping thread. Inputs come in the order of rows, each once.
using OnInput = std::function<void(const ProductInput& input)>;

class Engine;

// One timeline: tokens, and their keys and values. Move-only; fork() copies. Used by one thread at
// a time, and while a step has it by no other. Outlives its Engine never: it holds a share of it.
class Session {
 public:
  ~Session();
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;

  const std::vector<uint32_t>& tokens() const;
  size_t size() const { return tokens().size(); }
  size_t context() const;  // the most it can hold

  // Runs tokens behind what is there. Returns the last one's logits, a view that the session's next
  // call overwrites. tokens: at least one. Chunks that were finished stay when a later one fails;
  // size() tells. kExhausted: the context is full (nothing was run); kCancelled; kInvalidArgument:
  // a token beyond the vocabulary; kCorrupt: values that are no numbers, naming the layer.
  Result<std::span<const float>> append(std::span<const uint32_t> tokens,
                                        const CancelToken* cancel = nullptr);
  // Makes the timeline exactly these tokens, keeping what it has in common with them from the start
  // and running the rest; the last token is run again when all is there. Returns as append().
  Result<std::span<const float>> become(std::span<const uint32_t> tokens,
                                        const CancelToken* cancel = nullptr);
  // How many tokens from the start these have in common with the timeline.
  size_t common_prefix(std::span<const uint32_t> tokens) const;

  // When room for count more is lacking: drops half of what lies behind the first keep tokens, and
  // more if need be, and runs the rest anew, so that the session is what a fresh one over the
  // shortened text would be. Returns how many tokens were dropped (0: there was room).
  Result<size_t> shift(size_t keep, size_t count = 1, const CancelToken* cancel = nullptr);

  // Forgets all but the first count tokens; count ≤ size(). Models with a recurrent state go back
  // to one that was kept, and run what lies behind it again with the next step.
  void rewind(size_t count);
  // The same timeline twice; memory is shared until one of them writes.
  Session fork() const;

  // A file of this session: docs/formats.md#session. Written whole or not at all. kUnsupported for
  // those of a device, where keys and values do not lie in blocks; load() likewise.
  Status save(const std::string& path) const;
  // Replaces the timeline. kInvalidArgument for another model's file, other keys and values, or a
  // longer context than this session's; kUnsupported for another version; kCorrupt for damage. The
  // timeline is unchanged then; a file that cannot be read to its end leaves an empty one.
  Status load(const std::string& path);
  Status load(const io::ByteSource& source);

 private:
  friend class Engine;
  struct State;
  explicit Session(std::unique_ptr<State> state);
  Status replace(std::span<const uint32_t> tokens, size_t run,
                 const std::function<Status(std::span<std::byte>)>& read);
  std::unique_ptr<State> state_;
};

// Some sequence's next tokens. The logits of the last logits_count of them are wanted, or, with
// states, what the head would make logits of: the last layer's output behind the final norm.
struct Feed {
  Session* session = nullptr;
  std::span<const uint32_t> tokens;
  size_t logits_count = 1;
  bool states = false;
};

// What is added to a row of a weight while it is perturbed, the same for the same row: delta
// [columns] is overwritten. row: experts' rows are counted on; weights: the row as it is decoded.
// Called by several threads at once.
using RowChange =
    std::function<void(uint64_t row, std::span<const float> weights, std::span<float> delta)>;
struct Perturbation {
  std::string name;  // of the weight in the model's own terms: "model.layers.0.mlp.up_proj.weight"
  RowChange change;
};

// Called for each wanted row, those of a feed in the order of its tokens: logits [vocabulary], or
// states [hidden_size] where the feed wants those. Valid during the call.
using OnLogits = std::function<void(size_t feed, size_t token, std::span<const float> logits)>;

// Thread-compatible: one thread steps at a time, with all sessions involved. Results depend neither
// on what else is in a batch nor on chunks, threads or instruction batches: a row's logits are the
// same bits. pool must outlive the engine and is used inside step() alone.
class Engine : public std::enable_shared_from_this<Engine> {
 public:
  // path: as for `sluice inspect`: a folder with safetensors (quantized by MLX's rules or not), or
  // .gguf. Reads headers alone; what takes memory of its own, such as a tokenizer, is best opened
  // between this and load(). Refuses with the arithmetic when memory cannot hold the model
  // (kInvalidArgument), families that have no forward pass (kUnsupported), and tensors that
  // contradict the configuration (kCorrupt).
  static Result<std::shared_ptr<Engine>> plan(const std::string& path, const EngineOptions& options,
                                              ThreadPool& pool);
  // The same for a model whose headers have been read.
  static Result<std::shared_ptr<Engine>> plan(std::shared_ptr<const io::Checkpoint> checkpoint,
                                              const EngineOptions& options, ThreadPool& pool);
  // Both before load(). Where digests of pages may be kept from one run to the next, by preference;
  // without any, or where none can be written, each run takes them anew.
  void keep_digests(std::vector<std::string> paths);
  // That another engine will take memory beside this one, within the same limits.
  void share_with(const MemoryNeed& draft);
  // Reads the weights; once, before the first session. Refuses as plan() does, now with all that
  // the process holds; the source's errors.
  Status load(Log& log, Progress& progress);
  // plan() and load().
  static Result<std::shared_ptr<Engine>> open(const std::string& path, const EngineOptions& options,
                                              ThreadPool& pool, Log& log, Progress& progress);
  static Result<std::shared_ptr<Engine>> open(std::shared_ptr<const io::Checkpoint> checkpoint,
                                              const EngineOptions& options, ThreadPool& pool,
                                              Log& log, Progress& progress);
  ~Engine();

  StreamStatistics statistics() const;  // all 0 where every weight stays in memory
  bool reads_by_ring() const;           // weights that do not stay

  // ---- experts that take turns in memory; without such, these do nothing ----
  // Between steps: gives memory back when the machine is short of it, and takes more when there is
  // more, within what load() was allowed. Returns whether anything changed.
  bool adapt_memory();
  // The same to a given size; at least what a token needs. Returns the bytes taken now.
  uint64_t resize_experts(uint64_t bytes);
  ExpertShares expert_shares() const;
  // Begins with what an earlier run found, and reads those most used. kInvalidArgument when the
  // shares are not this model's; the source's errors.
  Status start_from(const ExpertShares& shares);

  // ---- for measuring ----
  // Records what steps choose until null, which must come before the trace goes.
  void record_experts(ExpertTrace* trace);
  // Shows what enters products with matrices, from the next step on until null. Embeddings are no
  // products; those of single heads (HeadProduct) are not shown. On the processor alone.
  void observe_inputs(OnInput on_input);
  // Between the first two, what is read ahead is noted: some hundred bytes for each read. The third
  // reads the same again, without computing: what the disk would have allowed. Errors: the
  // source's.
  void record_reads();
  void stop_recording_reads();
  Status replay_reads();
  // What of the weights stays in this process's memory, as it lies there: for reading it without
  // computing, which is what memory would have allowed. Empty on a device. Valid after load().
  std::span<const std::byte> resident_weights() const;
  ThreadPool& pool() const;  // plan()'s, to be used between steps
  // Of all steps since load(); none on a device.
  ProductCounts products() const;
  // How long so many would take this processor's threads, were multiplying all there is to do:
  // measured now, which takes some 10 ms for each kind. 0: unknown (a device, or scalar code).
  double seconds_at_peak(const ProductCounts& counts) const;

  // Steps from now on compute as if these weights were perturbed, and all others as they are;
  // without any, as before. Matrices alone: products, and rows of embeddings. After load(); between
  // steps. Takes memory beside what memory() says: chunk_tokens rows, and sixteen for each thread.
  // kNotFound when a name is no matrix of the model, kUnsupported on a device; nothing changes
  // then.
  Status perturb(std::span<const Perturbation> perturbations);
  bool has_matrix(std::string_view name) const;

  const ModelInfo& info() const;
  const MemoryNeed& memory() const;
  const Json& config() const;             // config.json, or its equivalent rebuilt from GGUF
  const Json& generation_config() const;  // null when absent
  // A small file of the model: "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", …
  // Rebuilt from metadata for GGUF. kNotFound when there is none.
  Result<std::string> sidecar(std::string_view name) const;

  Session new_session();

  // Runs every feed's tokens behind its session, at most one feed per session. Errors as for
  // Session::append(); what finished chunks brought stays.
  Status step(std::span<const Feed> feeds, const OnLogits& on_logits,
              const CancelToken* cancel = nullptr);

 private:
  friend class Session;
  friend struct EngineOpener;
  struct State;
  struct Chunk;
  struct Results;
  Status check_feeds(std::span<const Feed> feeds) const;
  Status run_chunk(const Chunk& chunk, const OnLogits& on_logits);
  std::span<const float> values_of(const Results& results, bool states, size_t first);
  Status hand_out(const Results& results, bool states, std::span<const float> values,
                  const OnLogits& on_logits);
  explicit Engine(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace sluice::runtime
