#include "model/layer.h"

#include <algorithm>

namespace sluice::model {

Weight required(Backend& backend, std::string_view name) {
  const Weight weight = backend.weight(name);
  SLUICE_CHECK(weight != Weight::kNone);
  return weight;
}

Norm::Norm(const ModelConfig& config, Backend& backend, std::string_view path)
    : kind_(config.norm),
      weight_(kind_ == NormKind::kRmsLessOne
                  ? backend.weight_plus_one(fmt::format("{}.weight", path))
                  : required(backend, fmt::format("{}.weight", path))),
      bias_(backend.weight(fmt::format("{}.bias", path))),
      epsilon_(config.rms_norm_eps) {}

void Norm::run(Backend& backend, Tensor x, Tensor out) const {
  switch (kind_) {
    case NormKind::kRms:
    case NormKind::kRmsLessOne: return backend.rms_norm(x, weight_, epsilon_, out);
    case NormKind::kLayer: return backend.layer_norm(x, weight_, bias_, epsilon_, out);
  }
}

void Norm::run_heads(Backend& backend, Tensor x, size_t heads) const {
  backend.rms_norm_heads(x, heads, weight_, epsilon_);
}

Weight LayerContext::weight(std::string_view parameter) const {
  return required(backend, config.layer_name(layer, parameter));
}

Weight LayerContext::weight_or_none(std::string_view parameter) const {
  return backend.weight(config.layer_name(layer, parameter));
}

Product LayerContext::product(std::string_view path, Tensor out) const {
  return {weight(fmt::format("{}.weight", path)), weight_or_none(fmt::format("{}.bias", path)),
          out};
}

const AttentionSpace& Workspace::attention_of(const KvDims& kv) const {
  const auto found = std::ranges::find(attention, kv, &AttentionSpace::kv);
  SLUICE_CHECK(found != attention.end());
  return *found;
}

const GatedSpace& Workspace::dense_of(size_t width) const {
  const auto found = std::ranges::find(dense, width, &GatedSpace::width);
  SLUICE_CHECK(found != dense.end());
  return *found;
}

Norm LayerContext::norm(std::string_view path) const {
  return {config, backend, config.layer_name(layer, path)};
}

}  // namespace sluice::model
