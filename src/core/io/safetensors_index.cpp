// An event handler that keeps weight_map and skips the rest.
#include "io/safetensors_index.h"

#include <algorithm>
#include <map>
#include <optional>

#include "base/json.h"
#include "io/names.h"

namespace sluice::io {
namespace {

class IndexHandler : public JsonSax {
 public:
  explicit IndexHandler(const std::string& label) : label_(label) {}

  std::vector<SafetensorsIndex::Entry> entries_;  // file: in order of first appearance
  std::map<std::string, uint32_t> files_;
  std::optional<Error> error_;
  bool map_seen_ = false;
  uint64_t total_size_ = 0;

  bool start_object(size_t) override {
    ++depth_;
    if (depth_ == 1) return true;
    if (depth_ == 2 && at_map_) {
      at_map_ = false;
      in_map_ = true;
      return true;
    }
    return value("an object");
  }
  bool end_object() override {
    if (depth_ == 2) in_map_ = false;
    --depth_;
    return true;
  }
  bool start_array(size_t) override {
    ++depth_;
    return value("an array");
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool key(string_t& text) override {
    at_size_ = depth_ == 2 && in_metadata_ && text == "total_size";
    if (depth_ == 1) {
      in_metadata_ = text == "metadata";
      if (text != "weight_map") return true;
      if (map_seen_) return stop("{}: weight_map appears twice", label_);
      map_seen_ = at_map_ = true;
      return true;
    }
    if (!in_map_) return true;
    if (auto status = check_tensor_name(text, label_); !status) {
      error_ = std::move(status).error();
      return false;
    }
    tensor_ = std::move(text);
    return true;
  }
  bool string(string_t& text) override {
    if (!in_map_) return value("a string");
    if (!is_bare_file_name(text) || !text.ends_with(".safetensors"))
      return stop("{}: tensor \"{}\" is said to be in {}, which is not a bare .safetensors name",
                  label_, tensor_, printable(text));
    const auto [file, added] =
        files_.emplace(std::move(text), static_cast<uint32_t>(files_.size()));
    entries_.push_back({std::move(tensor_), file->second});
    return true;
  }
  bool null() override { return value("null"); }
  bool boolean(bool) override { return value("a boolean"); }
  bool number_integer(number_integer_t) override { return value("a number"); }
  bool number_unsigned(number_unsigned_t number) override {
    if (at_size_ && depth_ == 2) total_size_ = number;
    return value("a number");
  }
  bool number_float(number_float_t number, const string_t&) override {
    constexpr double kSizeMax = 9e15;  // beyond it not every whole number is a double
    if (at_size_ && depth_ == 2 && number >= 0 && number <= kSizeMax)
      total_size_ = static_cast<uint64_t>(number);
    return value("a number");
  }
  bool binary(binary_t&) override { return value("binary data"); }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception&) override {
    return false;
  }

 private:
  // Any value other than a file name inside the map, or an object where the map should be.
  bool value(std::string_view found) {
    if (in_map_)
      return stop("{}: tensor \"{}\" should name a file, found {}", label_, tensor_, found);
    if (at_map_) return stop("{}: weight_map should be an object, found {}", label_, found);
    if (depth_ == 0) return stop("{}: should be an object, found {}", label_, found);
    return true;
  }
  template <class... Args>
  bool stop(fmt::format_string<Args...> format, Args&&... args) {
    error_ = Error{ErrorCode::kCorrupt, fmt::format(format, std::forward<Args>(args)...)};
    return false;
  }

  const std::string& label_;
  size_t depth_ = 0;
  bool at_map_ = false;  // its key has been read, its value not yet
  bool in_map_ = false;
  bool in_metadata_ = false;
  bool at_size_ = false;  // its key has been read
  std::string tensor_;
};

}  // namespace

Result<SafetensorsIndex> parse_safetensors_index(std::string_view text, const std::string& label) {
  IndexHandler handler(label);
  if (auto status = parse_json_events(text, label, handler); !status) {
    if (handler.error_) return std::unexpected(std::move(*handler.error_));
    return std::unexpected(std::move(status).error());
  }
  if (!handler.map_seen_)
    return fail(ErrorCode::kCorrupt, "{}: key \"weight_map\" is missing", label);
  SafetensorsIndex index;
  index.total_size = handler.total_size_;
  std::vector<uint32_t> sorted_place(handler.files_.size());
  for (const auto& [name, place] : handler.files_) {
    sorted_place[place] = static_cast<uint32_t>(index.files.size());
    index.files.push_back(name);
  }
  index.entries = std::move(handler.entries_);
  for (auto& entry : index.entries) entry.file = sorted_place[entry.file];
  const auto by_name = [](const auto& a, const auto& b) { return a.tensor < b.tensor; };
  std::sort(index.entries.begin(), index.entries.end(), by_name);
  const auto twice =
      std::adjacent_find(index.entries.begin(), index.entries.end(),
                         [](const auto& a, const auto& b) { return a.tensor == b.tensor; });
  if (twice != index.entries.end())
    return fail(ErrorCode::kCorrupt, "{}: tensor \"{}\" appears twice in weight_map", label,
                twice->tensor);
  if (index.entries.empty()) return fail(ErrorCode::kCorrupt, "{}: weight_map is empty", label);
  return index;
}

}  // namespace sluice::io
