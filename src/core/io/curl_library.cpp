#include "io/curl_library.h"

#include <dlfcn.h>

namespace sluice::io {
namespace {

#if defined(__APPLE__)
constexpr const char* kNames[] = {"/usr/lib/libcurl.4.dylib", "libcurl.4.dylib"};
#else
constexpr const char* kNames[] = {"libcurl.so.4", "libcurl-gnutls.so.4"};
#endif

template <class Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
  return function != nullptr;
}

}  // namespace

std::unique_ptr<const CurlLibrary> load_curl() {
  void* library = nullptr;
  for (const char* name : kNames)
    if (library == nullptr) library = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return nullptr;
  auto curl = std::make_unique<CurlLibrary>();
  const bool whole = find(library, "curl_easy_init", curl->easy_init) &&
                     find(library, "curl_easy_cleanup", curl->easy_cleanup) &&
                     find(library, "curl_easy_reset", curl->easy_reset) &&
                     find(library, "curl_easy_setopt", curl->easy_setopt) &&
                     find(library, "curl_easy_perform", curl->easy_perform) &&
                     find(library, "curl_easy_strerror", curl->easy_strerror) &&
                     find(library, "curl_slist_append", curl->slist_append) &&
                     find(library, "curl_slist_free_all", curl->slist_free_all) &&
                     find(library, "curl_global_init", curl->global_init) &&
                     find(library, "curl_global_cleanup", curl->global_cleanup);
  // Thread-safe and repeatable in every libcurl that is recent enough to be built with.
  if (!whole || curl->global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) return nullptr;
  return curl;
}

}  // namespace sluice::io
