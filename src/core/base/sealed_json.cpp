#include "base/sealed_json.h"

namespace sluice {

Digest content_digest(Json object) {
  if (object.is_object()) object.erase(std::string(kSealKey));
  return digest_of(dump_json(object));
}

Json sealed(Json object) {
  const std::string digest = content_digest(object).hex();
  object[kSealKey] = digest;
  return object;
}

Status check_seal(const Json& object, std::string_view label) {
  SLUICE_ASSIGN(const std::string recorded, json_string(object, kSealKey, label));
  if (const std::string found = content_digest(object).hex(); found != recorded)
    return fail(ErrorCode::kCorrupt,
                "{}: content does not match its digest (recorded {}, found {}): it was damaged or "
                "edited since Sluice wrote it",
                label, recorded, found);
  return {};
}

}  // namespace sluice
