#include "server/requests.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <random>

namespace sluice::server {
namespace {

constexpr size_t kStopsMax = 16, kStopBytesMax = 1024, kBiasesMax = 1024, kPromptsMax = 64;
constexpr size_t kLogprobsMax = 20, kInputsMax = 2048;

// An object's fields by kind; one that is absent or null leaves its value as it is.
class Fields {
 public:
  explicit Fields(const OrderedJson& object) : object_(object) {}
  explicit Fields(const Json&) = delete;  // would hold a copy that is gone

  const OrderedJson* find(std::string_view key) const { return json_find(object_, key); }

  template <class Number>
  Status real(std::string_view key, double low, double high, Number& value) const {
    const OrderedJson* found = find(key);
    if (found == nullptr) return {};
    if (!found->is_number()) return wrong(key, "a number");
    const double number = found->get<double>();
    if (!(number >= low && number <= high))
      return fail(ErrorCode::kInvalidArgument, "{} should be from {} to {}, found {}", key, low,
                  high, number);
    value = static_cast<Number>(number);
    return {};
  }

  Status whole(std::string_view key, uint64_t low, uint64_t high, size_t& value) const {
    const OrderedJson* found = find(key);
    if (found == nullptr) return {};
    if (!found->is_number_unsigned()) return wrong(key, "a whole number that is not negative");
    const auto number = found->get<uint64_t>();
    if (number < low || number > high)
      return fail(ErrorCode::kInvalidArgument, "{} should be from {} to {}, found {}", key, low,
                  high, number);
    value = static_cast<size_t>(number);
    return {};
  }

  Status flag(std::string_view key, bool& value) const {
    const OrderedJson* found = find(key);
    if (found == nullptr) return {};
    if (!found->is_boolean()) return wrong(key, "true or false");
    value = found->get<bool>();
    return {};
  }

  Status text(std::string_view key, std::string& value) const {
    const OrderedJson* found = find(key);
    if (found == nullptr) return {};
    if (!found->is_string()) return wrong(key, "a string");
    value = found->get<std::string>();
    return {};
  }

  static std::unexpected<Error> wrong(std::string_view key, std::string_view wanted) {
    return fail(ErrorCode::kInvalidArgument, "{} should be {}", key, wanted);
  }

 private:
  const OrderedJson& object_;
};

Status read_stops(const Fields& fields, std::vector<std::string>& stops) {
  const OrderedJson* stop = fields.find("stop");
  if (stop == nullptr) return {};
  const OrderedJson list = stop->is_array() ? *stop : OrderedJson::array({*stop});
  if (list.size() > kStopsMax)
    return fail(ErrorCode::kInvalidArgument, "stop has at most {} strings, found {}", kStopsMax,
                list.size());
  for (const OrderedJson& text : list) {
    if (!text.is_string()) return Fields::wrong("stop", "a string or a list of strings");
    stops.push_back(text.get<std::string>());
    if (stops.back().empty() || stops.back().size() > kStopBytesMax)
      return fail(ErrorCode::kInvalidArgument, "stop: each string has 1 to {} bytes, found {}",
                  kStopBytesMax, stops.back().size());
  }
  return {};
}

Status read_logit_bias(const Fields& fields, size_t vocabulary,
                       std::vector<runtime::LogitBias>& biases) {
  const OrderedJson* map = fields.find("logit_bias");
  if (map == nullptr) return {};
  if (!map->is_object()) return Fields::wrong("logit_bias", "an object of token ids and biases");
  if (map->size() > kBiasesMax)
    return fail(ErrorCode::kInvalidArgument, "logit_bias has at most {} tokens, found {}",
                kBiasesMax, map->size());
  for (const auto& [name, bias] : map->items()) {
    uint32_t token = 0;
    const auto [end, problem] = std::from_chars(name.data(), name.data() + name.size(), token);
    if (problem != std::errc() || end != name.data() + name.size() || token >= vocabulary)
      return fail(ErrorCode::kInvalidArgument, "logit_bias: {} is no token id below {}", name,
                  vocabulary);
    if (!bias.is_number() || std::abs(bias.get<double>()) > 100)
      return fail(ErrorCode::kInvalidArgument, "logit_bias: {}'s bias should be from -100 to 100",
                  name);
    // As OpenAI has it: −100 is a ban.
    const auto value = bias.get<float>();
    biases.push_back({token, value <= -100 ? -std::numeric_limits<float>::infinity() : value});
  }
  return {};
}

Status read_seed(const Fields& fields, uint64_t& seed) {
  const OrderedJson* found = fields.find("seed");
  seed = std::random_device{}();
  if (found == nullptr) return {};
  if (!found->is_number_integer()) return Fields::wrong("seed", "a whole number");
  seed = found->is_number_unsigned() ? found->get<uint64_t>()
                                     : static_cast<uint64_t>(found->get<int64_t>());
  return {};
}

Status read_sampling(const Fields& fields, const RequestDefaults& defaults,
                     runtime::SamplerOptions& sampling) {
  sampling = defaults.sampling;
  SLUICE_TRY(fields.real("temperature", 0, 100, sampling.temperature));
  SLUICE_TRY(fields.real("top_p", 0, 1, sampling.top_p));
  SLUICE_TRY(fields.whole("top_k", 0, 1'000'000, sampling.top_k));
  SLUICE_TRY(fields.real("min_p", 0, 1, sampling.min_p));
  SLUICE_TRY(fields.real("typical_p", 0.001, 1, sampling.typical_p));
  SLUICE_TRY(fields.real("presence_penalty", -2, 2, sampling.presence_penalty));
  SLUICE_TRY(fields.real("frequency_penalty", -2, 2, sampling.frequency_penalty));
  SLUICE_TRY(fields.real("repetition_penalty", 0.01, 10, sampling.repetition_penalty));
  SLUICE_TRY(fields.whole("repeat_last_n", 0, 1'000'000, sampling.penalty_last_n));
  SLUICE_TRY(read_logit_bias(fields, defaults.vocabulary, sampling.logit_bias));
  return read_seed(fields, sampling.seed);
}

Status read_stream(const Fields& fields, GenerationRequest& request) {
  SLUICE_TRY(fields.flag("stream", request.stream));
  const OrderedJson* options = fields.find("stream_options");
  if (options == nullptr) return {};
  if (!options->is_object()) return Fields::wrong("stream_options", "an object");
  return Fields(*options).flag("include_usage", request.include_usage);
}

Status read_common(const OrderedJson& body, const RequestDefaults& defaults,
                   GenerationRequest& request) {
  if (!body.is_object()) return Fields::wrong("the body", "a JSON object");
  const Fields fields(body);
  SLUICE_TRY(fields.text("model", request.model));
  SLUICE_TRY(read_sampling(fields, defaults, request.job.sampling));
  SLUICE_TRY(read_stops(fields, request.job.stops));
  SLUICE_TRY(read_stream(fields, request));
  SLUICE_TRY(fields.whole("n", 1, defaults.choices_max, request.choices));
  SLUICE_TRY(fields.flag("ignore_eos", request.job.ignore_end));
  SLUICE_TRY(fields.text("user", request.job.client));
  size_t& tokens = request.job.tokens_max;
  constexpr uint64_t kMost = std::numeric_limits<uint32_t>::max();
  tokens = defaults.tokens_max;
  SLUICE_TRY(fields.whole("max_tokens", 1, kMost, tokens));
  SLUICE_TRY(fields.whole("max_completion_tokens", 1, kMost, tokens));
  if (defaults.tokens_max != 0) tokens = std::min(tokens, defaults.tokens_max);
  return {};
}

Status refuse_unoffered(const Fields& fields) {
  for (const std::string_view key : {"functions", "function_call", "audio", "prediction"})
    if (fields.find(key) != nullptr)
      return fail(ErrorCode::kUnsupported, "{} is not offered by this server", key);
  return {};
}

// {"type": "json_schema", "json_schema": {"schema": …}}; its name and strictness change nothing, as
// an answer always keeps to its schema.
Status read_form(const Fields& fields, std::optional<chat::AnswerForm>& form) {
  const OrderedJson* format = fields.find("response_format");
  if (format == nullptr) return {};
  const OrderedJson* type = json_find(*format, "type");
  if (type == nullptr || !type->is_string())
    return Fields::wrong("response_format", "an object with a type");
  if (*type == "text") return {};
  if (*type == "json_object") {
    form = chat::AnswerForm{chat::AnswerForm::Kind::kObject, {}};
    return {};
  }
  if (*type != "json_schema")
    return Fields::wrong("response_format", "of type text, json_object or json_schema");
  const OrderedJson* outer = json_find(*format, "json_schema");
  const OrderedJson* schema = outer == nullptr ? nullptr : json_find(*outer, "schema");
  if (schema == nullptr || !(schema->is_object() || schema->is_boolean()))
    return Fields::wrong("response_format", "with json_schema.schema, an object");
  form = chat::AnswerForm{chat::AnswerForm::Kind::kSchema, dump_json(*schema)};
  return {};
}

Status read_tools(const Fields& fields, ChatRequest& request) {
  const OrderedJson* tools = fields.find("tools");
  if (tools == nullptr || tools->empty()) return {};
  SLUICE_TRY(chat::check_tools(*tools, "tools"));
  const OrderedJson* choice = fields.find("tool_choice");
  SLUICE_ASSIGN(request.tool_choice,
                chat::parse_tool_choice(choice == nullptr ? OrderedJson() : *choice, *tools));
  SLUICE_TRY(fields.flag("parallel_tool_calls", request.tool_choice.parallel));
  using Mode = chat::ToolChoice::Mode;
  if (request.tool_choice.mode != Mode::kNone) request.tools = *tools;
  const bool forced =
      request.tool_choice.mode == Mode::kRequired || request.tool_choice.mode == Mode::kNamed;
  if (forced && request.form)
    return fail(
        ErrorCode::kInvalidArgument,
        "response_format: an answer cannot be both JSON and the call that tool_choice wants");
  return {};
}

// enable_thinking is the most common variable; reasoning_effort templates take or leave.
Status read_variables(const Fields& fields, std::map<std::string, std::string>& variables) {
  std::string effort;
  SLUICE_TRY(fields.text("reasoning_effort", effort));
  if (!effort.empty()) variables["reasoning_effort"] = dump_json(effort);
  if (effort == "none") variables["enable_thinking"] = "false";
  const OrderedJson* given = fields.find("chat_template_kwargs");
  if (given == nullptr) return {};
  if (!given->is_object()) return Fields::wrong("chat_template_kwargs", "an object");
  for (const auto& [name, value] : given->items()) {
    if (name == "messages" || name == "tools" || name == "add_generation_prompt")
      return fail(ErrorCode::kInvalidArgument, "chat_template_kwargs: {} is not to be set here",
                  name);
    variables[name] = dump_json(value);
  }
  return {};
}

Result<std::vector<uint32_t>> read_tokens(const OrderedJson& list, std::string_view key,
                                          size_t vocabulary) {
  std::vector<uint32_t> tokens;
  for (const OrderedJson& token : list) {
    if (!token.is_number_unsigned() || token.get<uint64_t>() >= vocabulary)
      return fail(ErrorCode::kInvalidArgument, "{}: {} is no token id below {}", key,
                  dump_json(token), vocabulary);
    tokens.push_back(token.get<uint32_t>());
  }
  return tokens;
}

// A text, a list of texts, a list of tokens, or a list of those; at most most of them.
Status read_prompts(const OrderedJson* prompt, std::string_view key, size_t most, size_t vocabulary,
                    std::vector<PromptText>& prompts) {
  constexpr std::string_view kWanted = "a text, or a list of texts or tokens";
  if (prompt == nullptr) return Fields::wrong(key, kWanted);
  if (prompt->is_string()) {
    prompts.emplace_back(prompt->get<std::string>());
    return {};
  }
  if (!prompt->is_array() || prompt->empty()) return Fields::wrong(key, kWanted);
  if (prompt->front().is_number()) {
    SLUICE_ASSIGN(auto tokens, read_tokens(*prompt, key, vocabulary));
    prompts.emplace_back(std::move(tokens));
    return {};
  }
  if (prompt->size() > most)
    return fail(ErrorCode::kInvalidArgument, "{}: at most {} at once, found {}", key, most,
                prompt->size());
  for (const OrderedJson& one : *prompt) {
    if (!one.is_string() && !(one.is_array() && !one.empty() && one.front().is_number()))
      return Fields::wrong(key, kWanted);
    SLUICE_TRY(read_prompts(&one, key, most, vocabulary, prompts));
  }
  return {};
}

}  // namespace

Result<std::string> requested_model(const Json& body) {
  if (!body.is_object()) return Fields::wrong("the body", "a JSON object");
  const Json* model = json_find(body, "model");
  if (model == nullptr) return std::string();
  if (!model->is_string()) return Fields::wrong("model", "a string");
  return model->get<std::string>();
}

Result<ChatRequest> parse_chat_settings(const OrderedJson& body, const RequestDefaults& defaults) {
  ChatRequest request;
  SLUICE_TRY(read_common(body, defaults, request));
  const Fields fields(body);
  SLUICE_TRY(refuse_unoffered(fields));
  SLUICE_TRY(read_form(fields, request.form));
  SLUICE_TRY(read_tools(fields, request));
  SLUICE_TRY(read_variables(fields, request.variables));
  bool logprobs = false;
  size_t likeliest = 0;
  SLUICE_TRY(fields.flag("logprobs", logprobs));
  SLUICE_TRY(fields.whole("top_logprobs", 0, kLogprobsMax, likeliest));
  if (likeliest > 0 && !logprobs)
    return fail(ErrorCode::kInvalidArgument, "top_logprobs: logprobs should be true with it");
  if (logprobs) request.job.logprobs = likeliest;
  return request;
}

Result<ChatRequest> parse_chat_request(const OrderedJson& body, const RequestDefaults& defaults) {
  SLUICE_ASSIGN(ChatRequest request, parse_chat_settings(body, defaults));
  const OrderedJson* messages = json_find(body, "messages");
  if (messages == nullptr || !messages->is_array() || messages->empty())
    return Fields::wrong("messages", "a list of at least one message");
  SLUICE_ASSIGN(request.messages, chat::parse_messages(*messages, "messages"));
  return request;
}

Result<CompletionRequest> parse_completion_request(const OrderedJson& body,
                                                   const RequestDefaults& defaults) {
  CompletionRequest request;
  SLUICE_TRY(read_common(body, defaults, request));
  const Fields fields(body);
  SLUICE_TRY(refuse_unoffered(fields));
  SLUICE_TRY(read_form(fields, request.form));
  SLUICE_TRY(fields.flag("echo", request.echo));
  size_t best_of = request.choices, likeliest = 0;
  SLUICE_TRY(fields.whole("best_of", 1, defaults.choices_max, best_of));
  const OrderedJson* suffix = fields.find("suffix");
  if (best_of != request.choices || (suffix != nullptr && *suffix != ""))
    return fail(ErrorCode::kUnsupported, "best_of and suffix are not offered by this server");
  SLUICE_TRY(fields.whole("logprobs", 0, kLogprobsMax, likeliest));
  if (fields.find("logprobs") != nullptr) request.job.logprobs = likeliest;
  SLUICE_TRY(read_prompts(fields.find("prompt"), "prompt", kPromptsMax, defaults.vocabulary,
                          request.prompts));
  // One text each, as llama.cpp's server and OpenAI's long had it.
  if (fields.find("max_tokens") == nullptr && fields.find("max_completion_tokens") == nullptr)
    request.job.tokens_max =
        defaults.tokens_max != 0 ? std::min<size_t>(defaults.tokens_max, 256) : 256;
  if (request.prompts.size() * request.choices > kPromptsMax)
    return fail(ErrorCode::kInvalidArgument, "prompt: at most {} answers at once", kPromptsMax);
  return request;
}

Result<EmbeddingRequest> parse_embedding_request(const OrderedJson& body, size_t vocabulary,
                                                 size_t columns) {
  EmbeddingRequest request;
  const Fields fields(body);
  SLUICE_TRY(read_prompts(fields.find("input"), "input", kInputsMax, vocabulary, request.inputs));
  SLUICE_TRY(fields.text("user", request.client));
  size_t dimensions = columns;
  SLUICE_TRY(fields.whole("dimensions", 1, std::numeric_limits<uint32_t>::max(), dimensions));
  if (dimensions != columns)
    return fail(ErrorCode::kInvalidArgument, "dimensions: this model's states have {}, no others",
                columns);
  std::string format = "float";
  SLUICE_TRY(fields.text("encoding_format", format));
  if (format != "float" && format != "base64")
    return Fields::wrong("encoding_format", "float or base64");
  request.base64 = format == "base64";
  return request;
}

Result<SessionRequest> parse_session_request(const OrderedJson& body) {
  SessionRequest request;
  const Fields fields(body);
  if (fields.find("name") == nullptr) return Fields::wrong("name", "a string");
  SLUICE_TRY(fields.text("name", request.name));
  size_t slot = 0;
  SLUICE_TRY(fields.whole("slot", 0, std::numeric_limits<uint32_t>::max(), slot));
  if (fields.find("slot") != nullptr) request.slot = slot;
  return request;
}

Result<TokenizeRequest> parse_tokenize_request(const OrderedJson& body) {
  if (!body.is_object()) return Fields::wrong("the body", "a JSON object");
  TokenizeRequest request;
  const Fields fields(body);
  if (fields.find("content") == nullptr) return Fields::wrong("content", "a string");
  SLUICE_TRY(fields.text("content", request.content));
  SLUICE_TRY(fields.flag("add_special", request.add_special));
  return request;
}

Result<std::vector<uint32_t>> parse_detokenize_request(const OrderedJson& body, size_t vocabulary) {
  const OrderedJson* tokens = json_find(body, "tokens");
  if (tokens == nullptr || !tokens->is_array()) return Fields::wrong("tokens", "a list of ids");
  return read_tokens(*tokens, "tokens", vocabulary);
}

}  // namespace sluice::server
