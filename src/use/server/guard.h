// Who may ask: Host against DNS rebinding, Origin against other sites' pages, a bearer token, and
// JSON as the only type of a body, which pages of other sites cannot send unasked.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "server/http_parser.h"

namespace sluice::server {

struct GuardOptions {
  bool loopback = true;              // bound to this machine alone
  std::vector<std::string> hosts;    // names, besides localhost and addresses, it is known by
  std::vector<std::string> origins;  // "https://example.org", besides its own
  std::string token;                 // empty: none is asked for; never so unless loopback
};

struct GuardRefusal {
  int status;
  std::string message, code;
};

// Of a request's head. Nothing: it may go on.
std::optional<GuardRefusal> check_request(const HttpRequest& request, const GuardOptions& options);

// The origin that a reply may name as allowed; empty: none.
std::string allowed_origin(const HttpRequest& request, const GuardOptions& options);

// Takes the same time wherever they differ; their lengths are no secret.
bool equal_secrets(std::string_view a, std::string_view b);

}  // namespace sluice::server
