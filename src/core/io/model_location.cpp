#include "io/model_location.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "io/model_files.h"
#include "io/names.h"
#include "io/remote_files.h"

namespace sluice::io {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kHubScheme = "hf://";
constexpr std::string_view kDefaultEndpoint = "https://huggingface.co";
constexpr uint64_t kTokenBytesMax = 4096;
constexpr size_t kRefBytesMax = 256;

bool is_weight_file(std::string_view name) {
  return name.ends_with(".safetensors") || name.ends_with(".gguf");
}

// Without the blanks of a file's last line; empty for what could break out of a header.
std::string clean_token(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\n";
  const size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  const std::string_view token = text.substr(first, text.find_last_not_of(kBlank) - first + 1);
  const bool printable_all =
      std::ranges::all_of(token, [](char c) { return c > 0x20 && c < 0x7f; });
  return printable_all ? std::string(token) : std::string();
}

std::string read_small_file(const std::string& path, uint64_t bytes_max) {
  const auto source = open_file_source(path);
  if (!source) return {};
  auto text = read_text(**source, bytes_max);
  return text ? std::move(*text) : std::string();
}

bool exists(const std::string& path) {
  std::error_code error;
  return fs::exists(path, error);
}

// "org/name" and the revision behind an @.
std::pair<std::string_view, std::string_view> split_revision(std::string_view name) {
  const size_t at = name.find('@');
  if (at == std::string_view::npos) return {name, "main"};
  return {name.substr(0, at), name.substr(at + 1)};
}

bool is_model_name(std::string_view text) {
  const auto [name, revision] = split_revision(text);
  return name.find('/') != std::string_view::npos && is_repository_name(name) &&
         is_bare_file_name(revision);
}

// models--org--name/refs/main holds a commit, snapshots/<commit> the files.
std::optional<std::string> find_in_hub_cache(const std::string& cache, std::string_view name,
                                             std::string_view revision) {
  std::string folder(name);
  folder = folder.replace(folder.find('/'), 1, "--");
  const std::string model = fmt::format("{}/models--{}", cache, folder);
  if (!exists(model)) return std::nullopt;
  const std::string commit =
      clean_token(read_small_file(fmt::format("{}/refs/{}", model, revision), kRefBytesMax));
  for (const std::string& wanted : {commit, std::string(revision)}) {
    std::string snapshot = fmt::format("{}/snapshots/{}", model, wanted);
    if (!wanted.empty() && is_bare_file_name(wanted) && exists(snapshot)) return snapshot;
  }
  return std::nullopt;
}

void warn_if_readable_by_others(const Url& url, Log& log) {
  if (!url.encrypted() && !url.loopback())
    log.warn(
        fmt::format("{} is not encrypted: others on the way can read and change what is "
                    "fetched",
                    url.origin()));
}

Result<std::shared_ptr<const Checkpoint>> open_on_hub(HubAddress address, const Hub& hub,
                                                      Log& log) {
  std::string name;
  if (is_weight_file(address.folder)) {
    const size_t slash = address.folder.rfind('/');
    name = address.folder.substr(slash == std::string::npos ? 0 : slash + 1);
    address.folder.resize(slash == std::string::npos ? 0 : slash);
  }
  SLUICE_ASSIGN(const HubSnapshot snapshot, hub.list(address, false));
  const HubAddress& at = snapshot.address;
  log.info(fmt::format("{} at commit {}, read over the network", address.text(),
                       at.revision.substr(0, 12)));
  const auto files = hub_files(hub, snapshot);
  SLUICE_ASSIGN(auto checkpoint,
                open_checkpoint(at.text() + (name.empty() ? "" : "/" + name), *files, name));
  checkpoint->remote = true;
  checkpoint->repository = at.repository;
  checkpoint->revision = at.revision;
  return checkpoint;
}

Result<std::shared_ptr<const Checkpoint>> open_on_web(const Url& url, const ModelPlaces& places,
                                                      Log& log) {
  if (!url.query.empty())
    return fail(ErrorCode::kUnsupported,
                "{}: an address with a ? names one file, but a model consists of several; give the "
                "part before it",
                url.label());
  warn_if_readable_by_others(url, log);
  Url folder = url;
  std::string name;
  if (is_weight_file(url.path)) {
    const size_t slash = url.path.rfind('/');
    SLUICE_ASSIGN(name, percent_decode(url.path.substr(slash + 1)));
    folder.path = url.path.substr(0, slash + 1);
  }
  const auto files = web_files(std::make_shared<HttpClient>(places.http), folder);
  SLUICE_ASSIGN(auto checkpoint, open_checkpoint(url.text(), *files, name));
  checkpoint->remote = true;
  return checkpoint;
}

std::unexpected<Error> not_found(const std::string& text, const ModelPlaces& places) {
  std::vector<std::string> searched = places.hub_caches;
  searched.insert(searched.end(), places.studio_folders.begin(), places.studio_folders.end());
  return fail(ErrorCode::kNotFound,
              "{}: no such file or folder, and no downloaded model of that name in {}; hf://{} "
              "would fetch it",
              text, fmt::join(searched, ", "), text);
}

}  // namespace

ModelPlaces model_places(const std::function<const char*(const char* name)>& environment) {
  const auto value = [&](const char* name) {
    const char* found = environment(name);
    return std::string(found == nullptr ? "" : found);
  };
  ModelPlaces places;
  places.endpoint = value("HF_ENDPOINT");
  if (places.endpoint.empty()) places.endpoint = kDefaultEndpoint;
  places.http.ca_file = value("SSL_CERT_FILE");

  const std::string home = value("HOME"), cache_home = value("XDG_CACHE_HOME");
  const std::string cache = !cache_home.empty() ? cache_home
                            : !home.empty()     ? home + "/.cache"
                                                : std::string();
  std::string hf_home = value("HF_HOME");
  if (hf_home.empty() && !cache.empty()) hf_home = cache + "/huggingface";
  std::string hub_cache = value("HF_HUB_CACHE");
  if (hub_cache.empty() && !hf_home.empty()) hub_cache = hf_home + "/hub";
  if (!hub_cache.empty()) places.hub_caches.push_back(hub_cache);
  if (!home.empty())
    places.studio_folders = {home + "/.lmstudio/models", home + "/.cache/lm-studio/models"};

  places.http.token = clean_token(value("HF_TOKEN"));
  std::string token_file = value("HF_TOKEN_PATH");
  if (token_file.empty() && !hf_home.empty()) token_file = hf_home + "/token";
  if (places.http.token.empty() && !token_file.empty())
    places.http.token = clean_token(read_small_file(token_file, kTokenBytesMax));
  // Only where nobody on the way can read it.
  const auto endpoint = parse_url(places.endpoint);
  if (endpoint && (endpoint->encrypted() || endpoint->loopback()))
    places.http.token_origin = endpoint->origin();
  return places;
}

Result<Hub> connect_hub(const ModelPlaces& places, Log& log) {
  auto endpoint = parse_url(places.endpoint);
  if (!endpoint) return in_context("HF_ENDPOINT", std::move(endpoint).error());
  warn_if_readable_by_others(*endpoint, log);
  if (!places.http.token.empty() && places.http.token_origin.empty())
    log.warn(fmt::format("the token is not sent to {}, where it could be read by others",
                         endpoint->origin()));
  return Hub(std::make_shared<HttpClient>(places.http), *endpoint);
}

std::optional<std::string> find_downloaded(std::string_view text, const ModelPlaces& places) {
  if (!is_model_name(text)) return std::nullopt;
  const auto [name, revision] = split_revision(text);
  for (const std::string& cache : places.hub_caches)
    if (auto found = find_in_hub_cache(cache, name, revision)) return found;
  if (revision != "main") return std::nullopt;
  for (const std::string& folder : places.studio_folders)
    if (std::string path = fmt::format("{}/{}", folder, name); exists(path)) return path;
  return std::nullopt;
}

Result<std::string> local_model_path(const std::string& text, const ModelPlaces& places, Log& log) {
  if (text.starts_with(kHubScheme) || looks_like_url(text))
    return fail(ErrorCode::kUnsupported,
                "{}: this needs the model on this machine; `sluice pull` downloads it, `sluice "
                "fit` makes one that fits without downloading the whole",
                text);
  if (exists(text) || !is_model_name(text)) return text;
  const auto found = find_downloaded(text, places);
  if (!found) return not_found(text, places);
  log.info(fmt::format("{} is {}", text, *found));
  return *found;
}

Result<std::shared_ptr<const Checkpoint>> open_model(const std::string& text,
                                                     const ModelPlaces& places, Log& log) {
  if (text.starts_with(kHubScheme)) {
    SLUICE_ASSIGN(const HubAddress address, parse_hub_address(text));
    SLUICE_ASSIGN(const Hub hub, connect_hub(places, log));
    return open_on_hub(address, hub, log);
  }
  if (looks_like_url(text)) {
    SLUICE_ASSIGN(const Url url, parse_url(text));
    const auto endpoint = parse_url(places.endpoint);
    const auto page = endpoint ? hub_page_address(url, *endpoint) : std::nullopt;
    if (!page) return open_on_web(url, places, log);
    SLUICE_ASSIGN(const Hub hub, connect_hub(places, log));
    return open_on_hub(*page, hub, log);
  }
  SLUICE_ASSIGN(const std::string path, local_model_path(text, places, log));
  return open_checkpoint(path);
}

}  // namespace sluice::io
