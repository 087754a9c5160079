// Addresses of http and https, as strict as security needs them: what decides where a token may go
// must not be read in two ways.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace sluice::io {

struct Url {
  std::string scheme;  // "http" or "https"
  std::string host;    // lower case; an IPv6 address in its brackets
  uint16_t port = 0;   // the scheme's own where none was written
  std::string path;    // begins with '/', percent-encoded as it was written
  std::string query;   // without its '?'

  bool operator==(const Url&) const = default;
  // "https://host", with the port unless it is the scheme's own.
  std::string origin() const;
  std::string text() const;
  // Without the query, which may hold a signature: for messages.
  std::string label() const;
  bool encrypted() const { return scheme == "https"; }
  // localhost, 127.0.0.0/8 or [::1]: what is sent there does not leave the machine.
  bool loopback() const;
};

// Whether text begins as an address of http or https, in any case of letters.
bool looks_like_url(std::string_view text);

// Errors: kInvalidArgument for anything but scheme://host[:port][/path][?query]. A fragment is
// dropped; user names and passwords, spaces and control characters are refused. Bytes above ASCII
// in path and query are encoded.
Result<Url> parse_url(std::string_view text);

// What a redirect's Location means, seen from base. Errors: kInvalidArgument.
Result<Url> resolve_reference(const Url& base, std::string_view reference);

// One segment of a path, or with slashes kept a whole one: everything but letters, digits and
// "-._~" encoded.
std::string percent_encode(std::string_view text, bool keep_slashes = false);
// Errors: kInvalidArgument for a % without two digits, and for an encoded control character.
Result<std::string> percent_decode(std::string_view text);

// The file of that name in a folder, whose path may lack its last slash.
Url file_in(const Url& folder, std::string_view name);

}  // namespace sluice::io
