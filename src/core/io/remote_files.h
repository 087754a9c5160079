// A model's files on a hub or on a plain web server, through the interface that folders have.
#pragma once

#include <memory>
#include <string>

#include "base/error.h"
#include "io/hub.h"
#include "io/model_files.h"

namespace sluice::io {

// The files of one folder of a repository at one commit; it has been listed. Threads, as all of
// ModelFiles: any.
std::unique_ptr<ModelFiles> hub_files(const Hub& hub, const HubSnapshot& snapshot);

// A folder of a web server, which cannot be listed: it is asked for the files that a model usually
// consists of, and for what its configuration names.
std::unique_ptr<ModelFiles> web_files(std::shared_ptr<HttpClient> client, const Url& folder);

}  // namespace sluice::io
