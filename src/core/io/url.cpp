#include "io/url.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "io/names.h"

namespace sluice::io {
namespace {

constexpr size_t kUrlBytesMax = 16 << 10;  // signed ones take a kilobyte or two

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](char c) { return lower(c); });
  return out;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return lower(c) >= 'a' && lower(c) <= 'z'; }

std::optional<int> hex_value(char c) {
  if (is_digit(c)) return c - '0';
  c = lower(c);
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return std::nullopt;
}

std::string encode_bytes(std::string_view text, auto&& is_plain) {
  std::string out;
  for (const char c : text) {
    if (is_plain(c))
      out += c;
    else
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

std::string encode_above_ascii(std::string_view text) {
  return encode_bytes(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

std::unexpected<Error> no_url(std::string_view text, std::string_view why) {
  // A query may be a signature, and a user name stands before a password.
  const std::string_view shown = text.substr(0, text.find('?'));
  return fail(ErrorCode::kInvalidArgument, "{} is no usable address: {}",
              shown.find('@') == std::string_view::npos ? printable(shown) : "what was given", why);
}

bool is_host(std::string_view host) {
  if (host.starts_with('[')) {
    return host.size() > 3 && host.ends_with(']') &&
           std::ranges::all_of(host.substr(1, host.size() - 2), [](char c) {
             return hex_value(c).has_value() || c == ':' || c == '.';
           });
  }
  return !host.empty() && host.size() <= 253 && !host.starts_with('.') && !host.starts_with('-') &&
         host.find("..") == std::string_view::npos && std::ranges::all_of(host, [](char c) {
           return is_letter(c) || is_digit(c) || c == '-' || c == '.' || c == '_';
         });
}

uint16_t default_port(std::string_view scheme) { return scheme == "https" ? 443 : 80; }

// "host", "host:port", "[::1]:port".
Status parse_authority(std::string_view authority, std::string_view text, Url& url) {
  if (authority.find('@') != std::string_view::npos)
    return no_url(text, "it holds a user name or password");
  const size_t bracket = authority.rfind(']');
  const size_t colon = authority.find(':', bracket == std::string_view::npos ? 0 : bracket);
  url.host = lower(authority.substr(0, colon));
  if (!is_host(url.host)) return no_url(text, "the host's name is missing or has other characters");
  url.port = default_port(url.scheme);
  if (colon == std::string_view::npos) return {};
  const std::string_view digits = authority.substr(colon + 1);
  const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), url.port);
  if (code != std::errc() || end != digits.data() + digits.size() || url.port == 0)
    return no_url(text, "the port is no number from 1 to 65535");
  return {};
}

}  // namespace

std::string Url::origin() const {
  std::string text = scheme + "://" + host;
  if (port != default_port(scheme)) text += fmt::format(":{}", port);
  return text;
}

std::string Url::text() const { return origin() + path + (query.empty() ? "" : "?" + query); }
std::string Url::label() const { return origin() + path; }

bool Url::loopback() const {
  if (host == "localhost" || host == "[::1]") return true;
  // 127.0.0.1 and its kin, but not 127.example.com.
  return host.starts_with("127.") && std::ranges::count(host, '.') == 3 &&
         std::ranges::all_of(host, [](char c) { return is_digit(c) || c == '.'; });
}

bool looks_like_url(std::string_view text) {
  const std::string start = lower(text.substr(0, 8));
  return start.starts_with("http://") || start.starts_with("https://");
}

Result<Url> parse_url(std::string_view text) {
  if (text.size() > kUrlBytesMax) return no_url(text.substr(0, 60), "it is too long");
  if (std::ranges::any_of(text, [](char c) {
        return static_cast<unsigned char>(c) <= 0x20 || c == 0x7f || c == '\\';
      }))
    return no_url(text, "it holds a space, a backslash or a control character");
  if (!looks_like_url(text)) return no_url(text, "it should begin with https:// or http://");
  Url url;
  const size_t scheme_end = text.find("://");
  url.scheme = lower(text.substr(0, scheme_end));
  std::string_view rest = text.substr(scheme_end + 3);
  rest = rest.substr(0, rest.find('#'));
  const size_t query = rest.find('?');
  if (query != std::string_view::npos) {
    url.query = encode_above_ascii(rest.substr(query + 1));
    rest = rest.substr(0, query);
  }
  const size_t slash = rest.find('/');
  SLUICE_TRY(parse_authority(rest.substr(0, slash), text, url));
  url.path = slash == std::string_view::npos ? "/" : encode_above_ascii(rest.substr(slash));
  return url;
}

Result<Url> resolve_reference(const Url& base, std::string_view reference) {
  if (looks_like_url(reference)) return parse_url(reference);
  if (reference.starts_with("//")) return parse_url(fmt::format("{}:{}", base.scheme, reference));
  if (reference.starts_with('/')) return parse_url(base.origin() + std::string(reference));
  // A colon before any slash would be another scheme.
  const size_t colon = reference.find(':');
  if (reference.empty() || (colon != std::string_view::npos && colon < reference.find('/')))
    return no_url(reference, "it should lead to https:// or http://");
  if (reference.starts_with('?'))
    return parse_url(base.origin() + base.path + std::string(reference));
  const std::string folder = base.path.substr(0, base.path.rfind('/') + 1);
  return parse_url(base.origin() + folder + std::string(reference));
}

std::string percent_encode(std::string_view text, bool keep_slashes) {
  return encode_bytes(text, [&](char c) {
    return is_letter(c) || is_digit(c) || c == '-' || c == '.' || c == '_' || c == '~' ||
           (keep_slashes && c == '/');
  });
}

Result<std::string> percent_decode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    const auto high = i + 2 < text.size() ? hex_value(text[i + 1]) : std::nullopt;
    const auto low = high ? hex_value(text[i + 2]) : std::nullopt;
    if (!low || *high * 16 + *low < 0x20 || *high * 16 + *low == 0x7f)
      return fail(ErrorCode::kInvalidArgument, "{} holds a % that encodes no character",
                  printable(text));
    out += static_cast<char>(*high * 16 + *low);
    i += 2;
  }
  return out;
}

Url file_in(const Url& folder, std::string_view name) {
  Url url = folder;
  url.query.clear();
  if (!url.path.ends_with('/')) url.path += '/';
  url.path += percent_encode(name, true);
  return url;
}

}  // namespace sluice::io
