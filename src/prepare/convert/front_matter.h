// The YAML head of a model card: what the source's README says about licence, languages and tags,
// with our own facts over it, the way mlx_lm merges them.
#pragma once

#include <string>
#include <string_view>

namespace sluice::convert {

// readme: the source's README.md, possibly empty. base_model: a name. Returns the head with its
// fences. Kept are all entries of the source's but library_name, pipeline_tag and base_model (and
// its relation), which become ours, and tags, to which "mlx" and "sluice" are added. A README
// without a head, or with one whose top level is not plain "key: value" lines, contributes nothing.
std::string merged_front_matter(std::string_view readme, std::string_view base_model);

}  // namespace sluice::convert
