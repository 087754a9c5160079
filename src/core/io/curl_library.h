// libcurl, loaded when the first address is opened: linked, its thirty libraries would cost every
// run of the program 7 MB of memory, models that lie on the disk included. Private to io.
#pragma once

#include <curl/curl.h>

#include <memory>

namespace sluice::io {

// The functions that are used, of a library that stays loaded. Threads: as libcurl's own.
struct CurlLibrary {
  decltype(&curl_easy_init) easy_init = nullptr;
  decltype(&curl_easy_cleanup) easy_cleanup = nullptr;
  decltype(&curl_easy_reset) easy_reset = nullptr;
  decltype(&curl_easy_setopt) easy_setopt = nullptr;
  decltype(&curl_easy_perform) easy_perform = nullptr;
  decltype(&curl_easy_strerror) easy_strerror = nullptr;
  decltype(&curl_slist_append) slist_append = nullptr;
  decltype(&curl_slist_free_all) slist_free_all = nullptr;
  decltype(&curl_global_init) global_init = nullptr;
  decltype(&curl_global_cleanup) global_cleanup = nullptr;
};

// Null where the system has no libcurl, or one that does not start.
std::unique_ptr<const CurlLibrary> load_curl();

}  // namespace sluice::io
