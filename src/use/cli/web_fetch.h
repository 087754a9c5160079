// How the agent's tools reach the web: bounded requests over io's client.
#pragma once

#include "chat/tools/search_tool.h"

namespace sluice::cli {

// For pages that a model or another page named: public addresses alone, checked at each connection.
chat::WebFetch fetch_public();
// For the search engine that the user named.
chat::WebFetch fetch_chosen();

}  // namespace sluice::cli
