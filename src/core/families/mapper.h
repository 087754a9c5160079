// What map_model reads a table with: it finds the source of every output module, checks types and
// shapes, and accounts for every source tensor. Private to families.
#pragma once

#include <optional>
#include <set>
#include <unordered_map>

#include "families/family.h"

namespace sluice::families {

// How many names a message lists, and at how many problems the search for more stops.
constexpr size_t kNamedMax = 4;
constexpr size_t kProblemsMax = 1000;

// The pattern with numbers for {L} and {E}.
std::string expand(std::string_view pattern, uint64_t layer, uint64_t expert);

// Names of one kind of problem: the first few, and how many there are.
class Problems {
 public:
  void add(std::string text) {
    if (count_++ < kNamedMax) texts_.push_back(std::move(text));
  }
  size_t count() const { return count_; }
  std::string list() const {
    std::string list = fmt::format("{}", fmt::join(texts_, ", "));
    if (count_ > texts_.size()) list += fmt::format(" and {} more", count_ - texts_.size());
    return list;
  }

 private:
  std::vector<std::string> texts_;
  size_t count_ = 0;
};

// A checkpoint's tensors by the names that a family's rules have for them. Borrows the checkpoint.
class SourceNames {
 public:
  // kCorrupt: two tensors stand for the same one.
  static Result<SourceNames> make(const io::Checkpoint& checkpoint, const Family& family) {
    SourceNames names(checkpoint);
    if (checkpoint.kind == io::SourceKind::kGguf || family.source_prefixes.empty()) return names;
    names.renamed_ = true;
    for (const io::StoredTensor& tensor : checkpoint.tensors) {
      const auto [other, is_new] =
          names.by_name_.emplace(own_name(family, tensor.info.name), &tensor);
      if (!is_new)
        return fail(ErrorCode::kCorrupt, "{}: {} and {} are the same tensor of a {} model",
                    checkpoint.path, other->second->info.name, tensor.info.name, family.name);
    }
    return names;
  }
  static std::string own_name(const Family& family, std::string_view name) {
    for (const auto& [from, to] : family.source_prefixes)
      if (name.starts_with(from)) return std::string(to).append(name.substr(from.size()));
    return std::string(name);
  }
  const io::StoredTensor* find(const std::string& name) const {
    if (!renamed_) return checkpoint_->find(name);
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : found->second;
  }

 private:
  explicit SourceNames(const io::Checkpoint& checkpoint) : checkpoint_(&checkpoint) {}
  const io::Checkpoint* checkpoint_;
  bool renamed_ = false;
  std::unordered_map<std::string, const io::StoredTensor*> by_name_;
};

class Mapper {
 public:
  // Borrows all.
  Mapper(const io::Checkpoint& checkpoint, const SourceNames& names, const Family& family,
         const ModelDims& dims, bool tied, Arrangement arrangement);

  // Fills modules, dropped and layers.
  Status run(ModelMap& map);
  // Instead: what run() would look for, by names alone.
  Result<std::vector<io::TensorInfo>> outline() {
    listing_ = true;
    ModelMap map;
    add_all_modules(map);
    if (checkpoint_.tensors.empty()) return std::move(listed_);
    account_for_the_rest(map);
    SLUICE_TRY(report());
    return std::move(listed_);
  }

 private:
  void add_all_modules(ModelMap& map);
  void add_modules(std::span<const ModuleRule> rules, int layer, ModelMap& map);
  bool exists(const ModuleRule& rule, int layer) const;
  SourceRule choose_source(const ModuleRule& rule, int layer) const;
  void add_sources(const SourceRule& source, OutputModule& module, RowOrder order);
  void add_head_sources(const SourceRule& source, OutputModule& module);
  void add_column_sources(const SourceRule& source, OutputModule& module);
  void add_alternating_sources(const SourceRule& source, OutputModule& module);
  void add_value_heads(const SourceRule& source, const ModuleRule& rule, OutputModule& module);
  void add_qkv_and_gate(OutputModule& module);
  const io::StoredTensor* take(const std::string& name, const OutputModule& module,
                               const numerics::Shape& expected);
  bool dropped_on_purpose(std::string_view name) const;
  const OtherPart* other_part(std::string_view name) const;
  void account_for_the_rest(ModelMap& map);
  Status report() const;
  bool too_many() const { return missing_.count() + wrong_.count() >= kProblemsMax; }

  const io::Checkpoint& checkpoint_;
  const SourceNames& names_;
  const Family& family_;
  const ModelDims& dims_;
  const bool gguf_;
  const bool tied_;
  const bool as_stored_;
  const bool unconverted_;
  std::vector<bool> used_;
  Problems missing_, wrong_, left_over_;
  bool listing_ = false;  // what is looked for goes here, whole
  std::vector<io::TensorInfo> listed_;
  std::set<std::string> listed_names_;
};

}  // namespace sluice::families
