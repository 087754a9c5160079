#include "server/guard.h"

#include <arpa/inet.h>

#include <algorithm>

#include "server/text.h"

namespace sluice::server {
namespace {

// The host of "host", "host:port" or "[address]:port" in lower case; empty where it is none of
// them.
std::string host_of(std::string_view authority) {
  const size_t bracket = authority.starts_with('[') ? authority.find(']') : std::string_view::npos;
  const size_t colon = authority.find(':', bracket == std::string_view::npos ? 0 : bracket);
  const std::string_view host = authority.substr(0, colon);
  if (colon != std::string_view::npos) {
    const std::string_view port = authority.substr(colon + 1);
    const bool digits = std::ranges::all_of(port, [](char c) { return c >= '0' && c <= '9'; });
    if (!digits || port.empty() || port.size() > 5) return {};
  }
  return lower_case(host);
}

bool is_address(const std::string& host, bool loopback) {
  in_addr four{};
  in6_addr six{};
  if (inet_pton(AF_INET, host.c_str(), &four) == 1)
    return !loopback || (ntohl(four.s_addr) >> 24) == 127;
  if (!host.starts_with('[') || !host.ends_with(']')) return false;
  if (inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &six) != 1) return false;
  return !loopback || IN6_IS_ADDR_LOOPBACK(&six);
}

// A name that somebody else's DNS may point here is not one of ours.
bool is_own_host(std::string_view authority, const GuardOptions& options) {
  const std::string host = host_of(authority);
  if (host.empty()) return false;
  return host == "localhost" || is_address(host, options.loopback) ||
         std::ranges::find(options.hosts, host) != options.hosts.end();
}

bool is_own_origin(const HttpRequest& request, std::string_view origin) {
  const std::string* host = request.header("host");
  for (const std::string_view scheme : {"http://", "https://"})
    if (host != nullptr && origin.starts_with(scheme) &&
        lower_case(origin.substr(scheme.size())) == lower_case(*host))
      return true;
  return false;
}

bool is_allowed_origin(const HttpRequest& request, const GuardOptions& options) {
  const std::string* origin = request.header("origin");
  return origin != nullptr && std::ranges::find(options.origins, *origin) != options.origins.end();
}

// What shows nothing of anybody's: the page, which asks for the token, and whether it is up.
bool is_public(const HttpRequest& request) {
  return request.method == "GET" && (request.path == "/" || request.path == "/health");
}

bool has_token(const HttpRequest& request, const std::string& token) {
  constexpr std::string_view kScheme = "bearer ";
  const std::string* given = request.header("authorization");
  if (given == nullptr || given->size() < kScheme.size()) return false;
  if (lower_case(given->substr(0, kScheme.size())) != kScheme) return false;
  return equal_secrets(trimmed(std::string_view(*given).substr(kScheme.size())), token);
}

bool is_json(const HttpRequest& request) {
  const std::string* type = request.header("content-type");
  if (type == nullptr) return false;
  return lower_case(trimmed(type->substr(0, type->find(';')))) == "application/json";
}

}  // namespace

bool equal_secrets(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned char difference = 0;
  for (size_t i = 0; i < a.size(); ++i)
    difference = static_cast<unsigned char>(difference | (a[i] ^ b[i]));
  return difference == 0;
}

std::string allowed_origin(const HttpRequest& request, const GuardOptions& options) {
  return is_allowed_origin(request, options) ? *request.header("origin") : "";
}

std::optional<GuardRefusal> check_request(const HttpRequest& request, const GuardOptions& options) {
  const std::string* host = request.header("host");
  if (host == nullptr || !is_own_host(*host, options))
    return GuardRefusal{403, "this server is not known by that Host; --allow-host adds a name",
                        "host_not_allowed"};
  const std::string* origin = request.header("origin");
  const bool other_site = is_allowed_origin(request, options);
  if (origin != nullptr && !other_site && !is_own_origin(request, *origin))
    return GuardRefusal{403, "pages of that Origin may not ask; --allow-origin adds one",
                        "origin_not_allowed"};
  const std::string* site = request.header("sec-fetch-site");
  if (site != nullptr && *site == "cross-site" && !other_site && request.path != "/")
    return GuardRefusal{403, "pages of other sites may not ask", "origin_not_allowed"};
  if (request.method == "OPTIONS") return std::nullopt;  // carries neither token nor body
  if (!options.token.empty() && !is_public(request) && !has_token(request, options.token))
    return GuardRefusal{401, "the bearer token is missing or wrong", "invalid_api_key"};
  if (request.method == "POST" && !is_json(request))
    return GuardRefusal{415, "the Content-Type of a POST should be application/json",
                        "unsupported_media_type"};
  return std::nullopt;
}

}  // namespace sluice::server
