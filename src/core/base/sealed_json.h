// JSON objects that carry a digest of themselves, so that damage shows even where every value is
// still plausible.
#pragma once

#include <string_view>

#include "base/digest.h"
#include "base/error.h"
#include "base/json.h"

namespace sluice {

inline constexpr std::string_view kSealKey = "digest";

// Of the object without kSealKey, on one line with sorted keys.
Digest content_digest(Json object);

// The object with its digest under kSealKey; an older one is replaced.
Json sealed(Json object);

// Errors: kCorrupt when the key is missing or says something else.
Status check_seal(const Json& object, std::string_view label);

}  // namespace sluice
