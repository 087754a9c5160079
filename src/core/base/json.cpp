#include "base/json.h"

#include <algorithm>
#include <cmath>

#include "base/ordered_json.h"

namespace sluice {
namespace {

// The parser quotes what it stumbled over, which need not be text.
std::string printable(std::string_view text) {
  std::string safe(text);
  for (char& c : safe)
    if (c < ' ' || c > '~') c = '?';
  return safe;
}

// Passes events on while counting depth; keeps the reason of the first failure.
class GuardedHandler : public JsonSax {
 public:
  explicit GuardedHandler(JsonSax& next) : next_(next) {}

  bool null() override { return next_.null(); }
  bool boolean(bool value) override { return next_.boolean(value); }
  bool number_integer(number_integer_t value) override { return next_.number_integer(value); }
  bool number_unsigned(number_unsigned_t value) override { return next_.number_unsigned(value); }
  bool number_float(number_float_t value, const string_t& text) override {
    return next_.number_float(value, text);
  }
  bool string(string_t& value) override { return next_.string(value); }
  bool binary(binary_t& value) override { return next_.binary(value); }
  bool key(string_t& value) override { return next_.key(value); }
  bool start_object(size_t count) override { return enter() && next_.start_object(count); }
  bool end_object() override { return leave() && next_.end_object(); }
  bool start_array(size_t count) override { return enter() && next_.start_array(count); }
  bool end_array() override { return leave() && next_.end_array(); }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    reason_ = fmt::format("malformed JSON at byte {} ({})", position, printable(error.what()));
    return false;
  }

  std::string reason_;

 private:
  bool enter() {
    if (++depth_ <= kJsonDepthMax) return true;
    reason_ = fmt::format("JSON nested deeper than {} levels", kJsonDepthMax);
    return false;
  }
  bool leave() {
    --depth_;
    return true;
  }

  JsonSax& next_;
  size_t depth_ = 0;
};

// Adds a key without a value. False: there is one.
bool add_key(Json& object, std::string& key, Json** slot) {
  auto [place, inserted] = object.emplace(std::move(key), nullptr);
  key = place.key();
  *slot = &*place;
  return inserted;
}

// An ordered object finds a key by looking at all of them, so duplicates are looked for when it is
// complete.
bool add_key(OrderedJson& object, std::string& key, OrderedJson** slot) {
  auto& members = object.get_ref<OrderedJson::object_t&>();
  *slot = &members.emplace_back(key, nullptr).second;
  return true;
}

// A key that the object has twice; null: there is none.
const std::string* repeated_key(const Json&) { return nullptr; }
const std::string* repeated_key(const OrderedJson& object) {
  std::vector<const std::string*> keys;
  for (const auto& [key, value] : object.get_ref<const OrderedJson::object_t&>())
    keys.push_back(&key);
  const auto content = [](const std::string* key) -> const std::string& { return *key; };
  std::ranges::sort(keys, {}, content);
  const auto repeated = std::ranges::adjacent_find(keys, {}, content);
  return repeated == keys.end() ? nullptr : *repeated;
}

// Builds a tree and refuses duplicate keys, which nlohmann's own builder would silently merge.
template <class Tree>
class TreeBuilder : public JsonSax {
 public:
  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t& text) override {
    if (!std::isfinite(value)) {
      reason_ = fmt::format("number {} is outside the range of a double", text);
      return false;
    }
    return add(value);
  }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool key(string_t& value) override {
    return add_key(*stack_.back(), value, &slot_) || duplicate(value);
  }
  bool start_object(size_t) override { return open(Tree::object()); }
  bool end_object() override {
    const std::string* repeated = repeated_key(*stack_.back());
    if (repeated != nullptr) return duplicate(*repeated);
    return close();
  }
  bool start_array(size_t) override { return open(Tree::array()); }
  bool end_array() override { return close(); }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception&) override {
    return false;
  }

  Tree root_;
  std::string reason_;

 private:
  bool duplicate(const std::string& key) {
    reason_ = fmt::format("duplicate key \"{}\"", key);
    return false;
  }
  Tree* place(Tree value) {
    if (stack_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (stack_.back()->is_array()) {
      stack_.back()->push_back(std::move(value));
      return &stack_.back()->back();
    }
    *slot_ = std::move(value);
    return slot_;
  }
  bool add(Tree value) {
    place(std::move(value));
    return true;
  }
  bool open(Tree value) {
    stack_.push_back(place(std::move(value)));
    return true;
  }
  bool close() {
    stack_.pop_back();
    return true;
  }

  // An array grows only while its last element is not open, so these pointers stay valid.
  std::vector<Tree*> stack_;
  Tree* slot_ = nullptr;
};

template <class Tree>
Result<Tree> parse_tree(std::string_view text, std::string_view label) {
  TreeBuilder<Tree> builder;
  if (auto status = parse_json_events(text, label, builder); !status) {
    if (!builder.reason_.empty())
      return fail(ErrorCode::kCorrupt, "{}: {}", label, builder.reason_);
    return std::unexpected(std::move(status).error());
  }
  return std::move(builder.root_);
}

std::unexpected<Error> wrong_type(std::string_view label, std::string_view key,
                                  std::string_view expected, const Json* found) {
  if (found == nullptr)
    return fail(ErrorCode::kCorrupt, "{}: key \"{}\" is missing (expected {})", label, key,
                expected);
  return fail(ErrorCode::kCorrupt, "{}: key \"{}\" should be {}, found {}", label, key, expected,
              found->type_name());
}

}  // namespace

Status parse_json_events(std::string_view text, std::string_view label, JsonSax& handler) {
  // nlohmann takes a null byte for the end of the text and would accept anything behind it.
  if (const size_t null = text.find('\0'); null != std::string_view::npos)
    return fail(ErrorCode::kCorrupt, "{}: malformed JSON at byte {} (a null byte)", label, null);
  GuardedHandler guard(handler);
  try {
    if (Json::sax_parse(text.begin(), text.end(), &guard)) return {};
  } catch (const std::exception& error) {
    return fail(ErrorCode::kCorrupt, "{}: {}", label, error.what());
  }
  return fail(ErrorCode::kCorrupt, "{}: {}", label,
              guard.reason_.empty() ? std::string("rejected") : guard.reason_);
}

Result<Json> parse_json(std::string_view text, std::string_view label) {
  return parse_tree<Json>(text, label);
}

Result<OrderedJson> parse_ordered_json(std::string_view text, std::string_view label) {
  return parse_tree<OrderedJson>(text, label);
}

std::string dump_json(const Json& value, int indent) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

const Json* json_find(const Json& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

Result<int64_t> json_int(const Json& object, std::string_view key, int64_t low, int64_t high,
                         std::string_view label) {
  const Json* value = json_find(object, key);
  if (value == nullptr || !value->is_number_integer())
    return wrong_type(label, key, "an integer", value);
  const bool too_large =
      value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  if (too_large || value->get<int64_t>() < low || value->get<int64_t>() > high)
    return fail(ErrorCode::kCorrupt, "{}: key \"{}\" should lie in [{}, {}], found {}", label, key,
                low, high, dump_json(*value));
  return value->get<int64_t>();
}

Result<double> json_number(const Json& object, std::string_view key, std::string_view label) {
  const Json* value = json_find(object, key);
  if (value == nullptr || !value->is_number()) return wrong_type(label, key, "a number", value);
  return value->get<double>();
}

Result<std::string> json_string(const Json& object, std::string_view key, std::string_view label) {
  const Json* value = json_find(object, key);
  if (value == nullptr || !value->is_string()) return wrong_type(label, key, "a string", value);
  return value->get<std::string>();
}

Result<bool> json_bool(const Json& object, std::string_view key, std::string_view label) {
  const Json* value = json_find(object, key);
  if (value == nullptr || !value->is_boolean()) return wrong_type(label, key, "a boolean", value);
  return value->get<bool>();
}

Result<const Json*> json_object(const Json& object, std::string_view key, std::string_view label) {
  const Json* value = json_find(object, key);
  if (value == nullptr || !value->is_object()) return wrong_type(label, key, "an object", value);
  return value;
}

Result<const Json*> json_array(const Json& object, std::string_view key, std::string_view label) {
  const Json* value = json_find(object, key);
  if (value == nullptr || !value->is_array()) return wrong_type(label, key, "an array", value);
  return value;
}

}  // namespace sluice
