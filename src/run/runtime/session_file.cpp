// Sessions on disk. Layout: docs/formats.md#session-file. A file belongs to one model, told by the
// digest of its configuration and headers, and to one kind of keys and values.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "io/storage.h"
#include "runtime/engine_state.h"

namespace sluice::runtime {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::string_view kMagic = "SLUICEKV";
// The second version has a recurrent state behind the keys and values.
constexpr uint32_t kVersion = 1, kRecurrentVersion = 2;
constexpr size_t kFixedBytes = 16;  // magic, version, length of the JSON
constexpr uint32_t kJsonBytesMax = 64 << 10;
constexpr size_t kDigestBytes = 32;  // hexadecimal
constexpr size_t kPieceBytes = 1 << 20;

template <class T>
std::span<const std::byte> bytes_of(std::span<const T> values) {
  return std::as_bytes(values);
}

// [layers, heads, key_dim, value_dim] of each run of layers that are alike; value_dim 0 where
// values lie in keys.
Json layer_runs(const KvShape& shape) {
  Json runs = Json::array();
  for (size_t first = 0, end = 0; first < shape.layers.size(); first = end) {
    const model::KvDims& dims = shape.layers[first];
    while (end < shape.layers.size() && shape.layers[end] == dims) ++end;
    runs.push_back(
        {end - first, dims.heads, dims.key_dim, dims.values_in_keys ? 0 : dims.value_dim});
  }
  return runs;
}

Json describe(const Engine& engine, const KvSequence& kv, const StateSequence& state,
              size_t tokens) {
  const KvShape& shape = kv.pool().shape();
  Json json = {{"model", engine.info().identity.hex()},
               {"kv", kv_type_name(shape.type)},
               {"block_tokens", kKvBlockTokens},
               {"tokens", tokens}};
  const Json runs = layer_runs(shape);
  if (runs.size() == 1 && runs[0][2] == runs[0][3]) {
    json["layers"] = runs[0][0];
    json["kv_heads"] = runs[0][1];
    json["head_dim"] = runs[0][2];
  } else {
    json["layers"] = runs;
  }
  bool turned = false;
  for (size_t layer = 0; layer < shape.layers.size(); ++layer) turned |= shape.turned(layer);
  if (turned) json["turned"] = true;
  if (engine.info().compat == Compat::kMlx) json["compat"] = "mlx";
  if (engine.info().rope_length > 0) json["rope_length"] = engine.info().rope_length;
  if (state.recurrent())
    json["state"] = {{"position", state.position()}, {"bytes", engine.info().state_bytes}};
  return json;
}

// The rows in use of each block, layer by layer and head by head, keys and then values of their
// own.
template <class Visit>
Status visit_rows(const KvSequence& kv, size_t tokens, Visit&& visit) {
  const KvPool& pool = kv.pool();
  for (size_t first = 0; first < tokens; first += kKvBlockTokens) {
    const uint32_t block = kv.blocks()[first / kKvBlockTokens];
    const size_t rows = std::min(kKvBlockTokens, tokens - first);
    const KvShape& shape = pool.shape();
    for (size_t layer = 0; layer < shape.layers.size(); ++layer)
      for (size_t head = 0; head < shape.layers[layer].heads; ++head) {
        SLUICE_TRY(visit(std::span(pool.keys(block, layer, head), rows * shape.key_bytes(layer))));
        if (const size_t bytes = rows * shape.value_bytes(layer); bytes > 0)
          SLUICE_TRY(visit(std::span(pool.values(block, layer, head), bytes)));
      }
  }
  return {};
}

// Small pieces are gathered into large writes; everything is hashed.
class Writer {
 public:
  explicit Writer(io::WritableFile& file) : file_(file) { buffer_.reserve(kPieceBytes); }
  Status add(std::span<const std::byte> bytes) {
    hasher_.update(bytes);
    if (buffer_.size() + bytes.size() > kPieceBytes) SLUICE_TRY(flush());
    if (bytes.size() > kPieceBytes) return file_.append(bytes);
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
    return {};
  }
  Status finish() {
    const std::string digest = hasher_.finish().hex();
    const auto bytes = std::as_bytes(std::span(digest));
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
    return flush();
  }

 private:
  Status flush() {
    SLUICE_TRY(file_.append(buffer_));
    buffer_.clear();
    return {};
  }
  io::WritableFile& file_;
  Hasher hasher_;
  std::vector<std::byte> buffer_;
};

Status write_session(io::WritableFile& file, const Json& header, std::span<const uint32_t> tokens,
                     const KvSequence& kv, const StateSequence& state) {
  Writer writer(file);
  const std::string json = dump_json(header);
  const uint32_t version = state.recurrent() ? kRecurrentVersion : kVersion;
  const uint32_t numbers[] = {version, static_cast<uint32_t>(json.size())};
  SLUICE_TRY(writer.add(std::as_bytes(std::span(kMagic))));
  SLUICE_TRY(writer.add(std::as_bytes(std::span(numbers))));
  SLUICE_TRY(writer.add(std::as_bytes(std::span(json))));
  SLUICE_TRY(writer.add(std::as_bytes(tokens)));
  SLUICE_TRY(
      visit_rows(kv, kv.size(), [&](std::span<const std::byte> rows) { return writer.add(rows); }));
  SLUICE_TRY(writer.add(state.current_bytes()));
  return writer.finish();
}

// Reads in order through a buffer.
class Reader {
 public:
  explicit Reader(const io::ByteSource& source, uint64_t at) : source_(source), at_(at) {}
  Status read(std::span<std::byte> out) {
    while (!out.empty()) {
      if (used_ == buffer_.size()) {
        const uint64_t left = source_.size() - at_;
        buffer_.resize(static_cast<size_t>(std::min<uint64_t>(left, kPieceBytes)));
        SLUICE_TRY(source_.read_at(at_, buffer_));
        at_ += buffer_.size();
        used_ = 0;
      }
      const size_t count = std::min(out.size(), buffer_.size() - used_);
      std::memcpy(out.data(), buffer_.data() + used_, count);
      used_ += count;
      out = out.subspan(count);
    }
    return {};
  }

 private:
  const io::ByteSource& source_;
  uint64_t at_;
  std::vector<std::byte> buffer_;
  size_t used_ = 0;
};

struct Header {
  Json json;
  uint64_t end = 0;  // where the tokens begin
};

// version: the one that sessions of this model have.
Result<Header> read_header(const io::ByteSource& source, uint32_t version) {
  std::array<std::byte, kFixedBytes> fixed{};
  if (source.size() < kFixedBytes + kDigestBytes)
    return fail(ErrorCode::kCorrupt, "{}: too short for a session file", source.label());
  SLUICE_TRY(source.read_at(0, fixed));
  if (std::memcmp(fixed.data(), kMagic.data(), kMagic.size()) != 0)
    return fail(ErrorCode::kCorrupt, "{}: not a session file", source.label());
  uint32_t numbers[2] = {};
  std::memcpy(numbers, fixed.data() + kMagic.size(), sizeof numbers);
  if (numbers[0] != version)
    return fail(ErrorCode::kUnsupported, "{}: session files of version {} are not known, only {}",
                source.label(), numbers[0], version);
  if (numbers[1] > kJsonBytesMax || source.size() < kFixedBytes + kDigestBytes + numbers[1])
    return fail(ErrorCode::kCorrupt, "{}: the header is cut off", source.label());
  std::string text(numbers[1], '\0');
  SLUICE_TRY(source.read_at(kFixedBytes, std::as_writable_bytes(std::span(text))));
  SLUICE_ASSIGN(Json json, parse_json(text, source.label()));
  return Header{std::move(json), kFixedBytes + numbers[1]};
}

// Every byte but the digest itself.
Status check_digest(const io::ByteSource& source) {
  Hasher hasher;
  std::vector<std::byte> piece;
  const uint64_t end = source.size() - kDigestBytes;
  for (uint64_t at = 0; at < end; at += piece.size()) {
    piece.resize(static_cast<size_t>(std::min<uint64_t>(end - at, kPieceBytes)));
    SLUICE_TRY(source.read_at(at, piece));
    hasher.update(piece);
  }
  std::string digest(kDigestBytes, '\0');
  SLUICE_TRY(source.read_at(end, std::as_writable_bytes(std::span(digest))));
  if (digest == hasher.finish().hex()) return {};
  return fail(ErrorCode::kCorrupt, "{}: the session is damaged: its digest does not fit",
              source.label());
}

Status check_place(const Engine& engine, const std::string& path) {
  if (engine.info().device.empty()) return {};
  return fail(ErrorCode::kUnsupported,
              "{}: session files are written and read where the processor computes; --device cpu "
              "makes it so",
              path);
}

}  // namespace

Status Session::save(const std::string& path) const {
  SLUICE_TRY(check_place(*state_->engine, path));
  const auto storage = io::local_storage();
  const std::string unfinished = path + std::string(io::kUnfinishedSuffix);
  const auto write = [&]() -> Status {
    SLUICE_ASSIGN(const auto file, storage->open(unfinished, io::OpenMode::kCreateOrOpen));
    SLUICE_TRY(file->truncate(0));
    SLUICE_TRY(write_session(
        *file, describe(*state_->engine, state_->kv, state_->state, state_->tokens.size()),
        state_->tokens, state_->kv, state_->state));
    SLUICE_TRY(file->sync());
    SLUICE_TRY(storage->rename(unfinished, path));
    return storage->sync_directory(io::parent_folder(path));
  };
  Status status = write();
  if (!status && storage->exists(unfinished)) (void)storage->remove(unfinished);
  return status;
}

Status Session::load(const std::string& path) {
  SLUICE_ASSIGN(const auto source, io::open_file_source(path));
  return load(*source);
}

// Everything is held against this engine before anything of the session changes.
Status Session::load(const io::ByteSource& source) {
  State& s = *state_;
  const std::string& label = source.label();
  SLUICE_TRY(check_place(*s.engine, label));
  SLUICE_ASSIGN(const Header header,
                read_header(source, s.state.recurrent() ? kRecurrentVersion : kVersion));
  SLUICE_ASSIGN(const int64_t count, json_int(header.json, "tokens", 0, INT64_MAX, label));
  Json expected = describe(*s.engine, s.kv, s.state, static_cast<size_t>(count));
  uint64_t run = static_cast<uint64_t>(count);  // of the tokens, whose keys and values are there
  if (s.state.recurrent() && header.json.contains("state")) {
    SLUICE_ASSIGN(const int64_t position,
                  json_int(header.json["state"], "position", 0, count, label));
    expected["state"]["position"] = position;
    run = static_cast<uint64_t>(position);
  }
  if (header.json.value("model", Json()) != expected["model"])
    return fail(ErrorCode::kInvalidArgument, "{}: this session belongs to another model than {}",
                label, s.engine->info().path);
  if (header.json != expected)
    return fail(ErrorCode::kInvalidArgument,
                "{}: the session's keys and values are {}, this engine's are {}", label,
                dump_json(header.json), dump_json(expected));
  const auto tokens_count = static_cast<uint64_t>(count);
  if (tokens_count > context())
    return fail(ErrorCode::kInvalidArgument,
                "{}: the session has {} tokens, which do not fit in a context of {}", label, count,
                context());
  const uint64_t state_bytes = run == 0 ? 0 : s.engine->info().state_bytes;
  if (source.size() != header.end + tokens_count * sizeof(uint32_t) +
                           run * s.kv.pool().shape().token_bytes() + state_bytes + kDigestBytes)
    return fail(ErrorCode::kCorrupt, "{}: {} bytes do not fit a session of {} tokens", label,
                source.size(), count);
  SLUICE_TRY(check_digest(source));

  Reader reader(source, header.end);
  std::vector<uint32_t> tokens(static_cast<size_t>(tokens_count));
  SLUICE_TRY(reader.read(std::as_writable_bytes(std::span(tokens))));
  const uint64_t vocabulary = s.engine->info().vocabulary;
  const auto bad =
      std::ranges::find_if(tokens, [&](uint32_t token) { return token >= vocabulary; });
  if (bad != tokens.end())
    return fail(ErrorCode::kCorrupt, "{}: token {} is beyond the model's vocabulary of {}", label,
                *bad, vocabulary);
  return replace(tokens, static_cast<size_t>(run),
                 [&](std::span<std::byte> rows) { return reader.read(rows); });
}

// The old blocks go first: with room for one session alone there are none for two.
Status Session::replace(std::span<const uint32_t> tokens, size_t run,
                        const std::function<Status(std::span<std::byte>)>& read) {
  State& s = *state_;
  rewind(0);
  const auto fill = [&]() -> Status {
    SLUICE_TRY(s.kv.reserve(run));
    SLUICE_TRY(visit_rows(s.kv, run, read));
    SLUICE_ASSIGN(const auto state, s.state.replace(run));
    return state.empty() ? Status() : read(state);
  };
  if (Status status = fill(); !status) {
    s.kv.truncate(0);
    s.state.rewind(0);
    return status;
  }
  s.kv.commit(run);
  s.tokens.assign(tokens.begin(), tokens.end());
  return {};
}

}  // namespace sluice::runtime
