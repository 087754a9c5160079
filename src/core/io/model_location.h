// What may be written where a model is asked for: a path, hf://org/name, an address on a web
// server, or the name of a model that other programs have downloaded.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "io/checkpoint.h"
#include "io/hub.h"

namespace sluice::io {

// Where models are looked for, and how a network is asked.
struct ModelPlaces {
  HttpOptions http;
  std::string endpoint;                     // of the hub
  std::vector<std::string> hub_caches;      // Hugging Face's: folders of models--org--name
  std::vector<std::string> studio_folders;  // LM Studio's: folders of org/name
};

// As the environment says: HF_TOKEN (else the file that Hugging Face's own tools keep it in),
// HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, SSL_CERT_FILE. cancel and log are the caller's to set.
ModelPlaces model_places(const std::function<const char*(const char* name)>& environment);

// Errors: kInvalidArgument for an endpoint that is no address.
Result<Hub> connect_hub(const ModelPlaces& places, Log& log);

// The folder of a downloaded model: "org/name", or with @revision in Hugging Face's cache. Nothing
// when there is none.
std::optional<std::string> find_downloaded(std::string_view name, const ModelPlaces& places);

// A path on this machine for what is there or has been downloaded under that name. Errors:
// kNotFound, naming what would fetch it; kUnsupported for addresses.
Result<std::string> local_model_path(const std::string& text, const ModelPlaces& places, Log& log);

// Opens a model wherever it is. log: told what was found where, and of connections that are not
// encrypted.
Result<std::shared_ptr<const Checkpoint>> open_model(const std::string& text,
                                                     const ModelPlaces& places, Log& log);

}  // namespace sluice::io
