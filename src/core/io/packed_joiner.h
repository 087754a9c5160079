// What joins the tensors of packed formats: private to packed_tensors.cpp and the files beside it,
// one for each kind of format.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/packed_tensors.h"

namespace sluice::io {

// Replaces tensors by packed ones and drops those that became parts of them. One thread.
class Joiner {
 public:
  explicit Joiner(Checkpoint& checkpoint)
      : checkpoint_(checkpoint), joined_(checkpoint.tensors.size(), false) {}

  std::vector<StoredTensor>& tensors() { return checkpoint_.tensors; }
  const std::string& path() const { return checkpoint_.path; }
  // Of stem and ending; null where there is none.
  StoredTensor* find(std::string_view stem, std::string_view ending);
  // The tensor is no longer one of its own.
  void take(StoredTensor& part) { joined_[index(part)] = true; }
  bool is_taken(const StoredTensor& part) const { return joined_[index(part)]; }
  // The tensor decodes to these values; what is taken becomes part of it. name: unless as it is.
  void pack(StoredTensor& tensor, numerics::Shape shape, Packing packing,
            std::initializer_list<StoredTensor*> taken, std::string name = {});
  // kCorrupt: the one cannot be part of the other.
  std::unexpected<Error> misfit(const StoredTensor& part, const StoredTensor& weight,
                                std::string_view how) const;
  std::string label() const { return checkpoint_.path + ": config.json"; }
  Status finish();

 private:
  size_t index(const StoredTensor& tensor) const {
    return static_cast<size_t>(&tensor - checkpoint_.tensors.data());
  }

  Checkpoint& checkpoint_;
  std::vector<bool> joined_;
  std::vector<std::pair<size_t, std::string>> names_;  // by_name has views of the old ones
};

// "a.scales BF16 [6, 2]".
std::string described(const StoredTensor& tensor);
// F32, F16 or BF16.
bool is_plain_float(numerics::DType dtype);
PackedPart part_of(const StoredTensor& tensor, uint32_t rows_spanned = 1);
// Rows of the packed tensor are its columns, elements of that type.
PackedPart columns_of(const StoredTensor& tensor, numerics::DType dtype,
                      PartOrder order = PartOrder::kColumns);

// `quantization`, as mlx_lm writes it.
Status join_mlx(Joiner& joiner, const Json& quantization);
// gpt-oss as it is published.
Status join_mxfp4_blocks(Joiner& joiner);
// Small floats and integers with scales: compressed-tensors, modelopt, fp8, fbgemm_fp8.
Status join_scaled(Joiner& joiner, const Json& settings, bool compressed_tensors);
// One weight of compressed-tensors' pack-quantized.
Status join_packed_integers(Joiner& joiner, const Json& settings, const std::string& stem,
                            StoredTensor& codes, StoredTensor& scales);
Status join_gptq(Joiner& joiner, const Json& settings);
Status join_awq(Joiner& joiner, const Json& settings);

}  // namespace sluice::io
