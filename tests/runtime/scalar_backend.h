// Backend in doubles, one value at a time: what the forward passes mean, without a kernel. Weights
// are decoded row by row by the scalar reference.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>
#include <tuple>
#include <vector>

#include "model/backend.h"
#include "runtime/weight_store.h"

namespace sluice::runtime {

class ScalarBackend : public model::Backend {
 public:
  using Row = std::vector<double>;
  using Matrix = std::vector<Row>;

  explicit ScalarBackend(const WeightStore& weights) : weights_(weights) {}

  model::Weight weight(std::string_view name) override {
    const auto entry = weights_.find(name);
    return entry ? model::Weight{*entry} : model::Weight::kNone;
  }
  model::Weight weight_plus_one(std::string_view name) override {
    plus_one_.push_back(*weights_.find(name));
    return model::Weight{kPlusOne | static_cast<uint32_t>(plus_one_.size() - 1)};
  }
  model::Tensor tensor(size_t columns, size_t) override { return new_tensor(columns); }
  model::Tensor logits_tensor(size_t columns) override { return new_tensor(columns); }
  model::RopeTable rope_table(const model::RopeRule& rule) override {
    ropes_.push_back(rule);
    return model::RopeTable{static_cast<uint32_t>(ropes_.size() - 1)};
  }

  void embed(model::Weight table, std::span<const uint32_t> tokens, model::Tensor out) override {
    Matrix rows;
    for (const uint32_t token : tokens) rows.push_back(weight_row(table, token));
    at(out) = rows;
  }
  void gather(model::Tensor x, std::span<const uint32_t> rows, model::Tensor out) override {
    Matrix taken;
    for (const uint32_t row : rows) taken.push_back(at(x)[row]);
    at(out) = taken;
  }
  void add(model::Tensor x, model::Tensor y) override {
    for (size_t r = 0; r < at(x).size(); ++r)
      for (size_t i = 0; i < at(x)[r].size(); ++i) at(x)[r][i] += at(y)[r][i];
  }
  void rms_norm(model::Tensor x, model::Weight weight, float epsilon, model::Tensor out) override {
    Matrix rows = at(x);
    for (Row& row : rows) normalise(row, 0, row.size(), weight_row(weight, 0), epsilon);
    at(out) = rows;
  }
  void rms_norm_first(model::Tensor x, model::Weight weight, float epsilon) override {
    const Row scale = weight_row(weight, 0);
    for (Row& row : at(x)) normalise(row, 0, scale.size(), scale, epsilon);
  }
  void layer_norm(model::Tensor x, model::Weight weight, model::Weight bias, float epsilon,
                  model::Tensor out) override {
    const Row scale = weight_row(weight, 0);
    const Row shift = bias == model::Weight::kNone ? Row(scale.size(), 0) : weight_row(bias, 0);
    Matrix rows = at(x);
    for (Row& row : rows) {
      double mean = 0, variance = 0;
      for (const double value : row) mean += value / static_cast<double>(row.size());
      for (const double value : row)
        variance += (value - mean) * (value - mean) / static_cast<double>(row.size());
      for (size_t i = 0; i < row.size(); ++i)
        row[i] = (row[i] - mean) / std::sqrt(variance + epsilon) * scale[i] + shift[i];
    }
    at(out) = rows;
  }
  void scale(model::Tensor x, float factor) override {
    for (Row& row : at(x))
      for (double& value : row) value *= factor;
  }
  void scale_add(model::Tensor x, float factor, model::Tensor y) override {
    for (size_t r = 0; r < at(x).size(); ++r)
      for (size_t i = 0; i < at(x)[r].size(); ++i) at(x)[r][i] += factor * at(y)[r][i];
  }
  void softcap(model::Tensor x, float cap) override {
    for (Row& row : at(x))
      for (double& value : row) value = cap * std::tanh(value / cap);
  }
  void multiply(model::Tensor x, model::Weight factors) override {
    const Row scale = weight_row(factors, 0);
    for (Row& row : at(x))
      for (size_t i = 0; i < row.size(); ++i) row[i] *= scale[scale.size() > 1 ? i : 0];
  }
  void scale_by_position(model::Tensor x, const model::PositionScale& rule,
                         const model::Batch& batch) override {
    for (const model::Segment& s : batch.segments)
      for (size_t i = 0; i < s.rows; ++i) {
        const double position = static_cast<double>(s.first_position + i);
        const double steps = std::floor((position + 1) / rule.interval);
        for (double& value : at(x)[s.first_row + i]) value *= 1 + rule.factor * std::log1p(steps);
      }
  }
  void activate(const model::ActivationRule& rule, model::Tensor gate, model::Tensor up) override {
    for (size_t r = 0; r < at(gate).size(); ++r)
      for (size_t i = 0; i < at(gate)[r].size(); ++i)
        at(gate)[r][i] = activated(rule, at(gate)[r][i], at(up)[r][i]);
  }
  void sigmoid_mul(model::Tensor gate, model::Tensor x) override {
    for (size_t r = 0; r < at(x).size(); ++r)
      for (size_t i = 0; i < at(x)[r].size(); ++i)
        at(x)[r][i] *= sigmoid(at(gate)[r][at(gate)[r].size() > 1 ? i : 0]);
  }
  void take_columns(model::Tensor x, size_t parts, size_t first, model::Tensor out) override {
    Matrix rows;
    for (const Row& row : at(x)) {
      Row taken;
      const size_t part = row.size() / parts, count = columns_[static_cast<uint32_t>(out)] / parts;
      for (size_t i = 0; i < parts; ++i)
        taken.insert(taken.end(), row.begin() + static_cast<ptrdiff_t>(i * part + first),
                     row.begin() + static_cast<ptrdiff_t>(i * part + first + count));
      rows.push_back(taken);
    }
    at(out) = rows;
  }
  void qmatmul(model::Tensor x, std::span<const model::Product> products) override {
    for (const model::Product& product : products) {
      Matrix rows;
      for (const Row& row : at(x))
        rows.push_back(multiply(product, 0, rows_of(product.weight), row));
      at(product.out) = rows;
    }
  }

  void head_matmul(model::Tensor x, const model::HeadProduct& product, model::Tensor out) override {
    const size_t rows = at(x).size(), x_head = columns_of(x) / product.heads;
    const size_t out_head = columns_of(out) / product.heads;
    at(out).resize(rows, Row(columns_of(out)));
    for (size_t h = 0; h < product.heads; ++h)
      for (size_t i = 0; i < product.rows; ++i) {
        const Row w = weight_row(product.weight, h * product.head_rows + product.first_row + i);
        for (size_t r = 0; r < rows; ++r) {
          const double* from = at(x)[r].data() + h * x_head;
          double* to = at(out)[r].data() + h * out_head;
          if (!product.transposed) to[i] = 0;
          for (size_t c = 0; c < w.size(); ++c) {
            if (product.transposed && i == 0) to[c] = 0;
            if (product.transposed)
              to[c] += w[c] * from[i];
            else
              to[i] += w[c] * from[c];
          }
        }
      }
  }
  void copy_heads(model::Tensor x, size_t heads, size_t first, size_t count, model::Tensor out,
                  size_t out_first) override {
    at(out).resize(at(x).size(), Row(columns_of(out)));
    for (size_t r = 0; r < at(x).size(); ++r)
      for (size_t h = 0; h < heads; ++h)
        for (size_t i = 0; i < count; ++i)
          at(out)[r][h * (columns_of(out) / heads) + out_first + i] =
              at(x)[r][h * (columns_of(x) / heads) + first + i];
  }
  void rms_norm_heads(model::Tensor x, size_t heads, model::Weight weight, float epsilon) override {
    const bool unweighted = weight == model::Weight::kNone;
    const Row scale = unweighted ? Row(at(x)[0].size() / heads, 1) : weight_row(weight, 0);
    for (Row& row : at(x))
      for (size_t h = 0; h < heads; ++h)
        normalise(row, h * row.size() / heads, row.size() / heads, scale, epsilon);
  }
  void rope(model::Tensor x, size_t heads, model::RopeTable table,
            const model::Batch& batch) override {
    const model::RopeRule& rule = ropes_[static_cast<uint32_t>(table)];
    const std::vector<double>& frequencies = rule.frequencies.inv_freq;
    const double scale = rule.frequencies.attention_factor;
    const size_t count = frequencies.size();
    for (const model::Segment& s : batch.segments)
      for (size_t i = 0; i < s.rows; ++i) {
        Row& row = at(x)[s.first_row + i];
        for (size_t h = 0; h < heads; ++h)
          for (size_t j = 0; j < count; ++j) {
            const double angle = static_cast<double>(s.first_position + i) * frequencies[j];
            const bool half = rule.style == model::RopeStyle::kHalf;
            const size_t head = h * row.size() / heads + rule.first;
            double& a = row[head + (half ? j : 2 * j)];
            double& b = row[head + (half ? j + count : 2 * j + 1)];
            const double turned = a * std::cos(angle) - b * std::sin(angle);
            b = (b * std::cos(angle) + a * std::sin(angle)) * scale;
            a = turned * scale;
          }
      }
  }
  void store_kv(const model::AttentionRule& rule, model::Tensor k, model::Tensor v,
                const model::Batch& batch) override {
    for (const model::Segment& s : batch.segments) {
      auto& [keys, values] = kv_[{s.sequence, rule.layer}];
      keys.resize(s.first_position);
      values.resize(s.first_position);
      for (size_t i = 0; i < s.rows; ++i) {
        keys.push_back(at(k)[s.first_row + i]);
        values.push_back(at(v)[s.first_row + i]);
      }
    }
  }
  void select_keys(const model::IndexRule& rule, model::Tensor q, model::Tensor k,
                   model::Tensor weights, const model::Batch& batch) override {
    store_kv({.layer = rule.cache, .kv = {}}, k, k, batch);
    selected_.assign(batch.tokens.size(), {});
    for (const model::Segment& s : batch.segments)
      for (size_t i = 0; i < s.rows; ++i) {
        const Matrix& keys = kv_[{s.sequence, rule.cache}].first;
        std::vector<std::pair<double, size_t>> order;
        for (size_t p = 0; p <= s.first_position + i; ++p) {
          double score = 0;
          for (size_t h = 0; h < rule.heads; ++h) {
            double product = 0;
            for (size_t c = 0; c < rule.key_dim; ++c)
              product += at(q)[s.first_row + i][h * rule.key_dim + c] * keys[p][c];
            score += at(weights)[s.first_row + i][h] * std::max(product, 0.0);
          }
          order.emplace_back(-score, p);
        }
        std::ranges::sort(order);
        if (order.size() > rule.top_k) order.resize(rule.top_k);
        for (const auto& [score, p] : order) selected_[s.first_row + i].push_back(p);
      }
  }
  void attention(const model::AttentionRule& rule, model::Tensor q, const model::Batch& batch,
                 model::Tensor out) override {
    Matrix rows(batch.tokens.size(), Row(rule.heads * rule.kv.value_dim));
    for (const model::Segment& s : batch.segments)
      for (size_t i = 0; i < s.rows; ++i)
        for (size_t head = 0; head < rule.heads; ++head)
          attend(rule, head, s.first_position + i, at(q)[s.first_row + i],
                 kv_[{s.sequence, rule.layer}],
                 rule.selected_max > 0 ? &selected_[s.first_row + i] : nullptr,
                 rows[s.first_row + i]);
    at(out) = rows;
  }

  void convolve(const model::ConvolutionRule& rule, model::Tensor x,
                const model::Batch& batch) override {
    for (const model::Segment& s : batch.segments) {
      Matrix& past = past_[{s.sequence, rule.layer, rule.first_channel}];
      past.resize(s.first_position);
      for (size_t i = 0; i < s.rows; ++i) {
        Row& row = at(x)[s.first_row + i];
        past.push_back(row);
        for (size_t c = 0; c < row.size(); ++c) {
          const Row filter = weight_row(rule.weight, rule.first_channel + c);
          double sum = rule.bias == model::Weight::kNone
                           ? 0
                           : weight_row(rule.bias, 0)[rule.first_channel + c];
          for (size_t tap = 0; tap < rule.taps && tap < past.size(); ++tap)
            sum += filter[rule.taps - 1 - tap] * past[past.size() - 1 - tap][c];
          row[c] = sum / (1 + std::exp(-sum));
        }
      }
    }
  }
  void delta(const model::DeltaRule& rule, model::Tensor q, model::Tensor k, model::Tensor v,
             model::Tensor b, model::Tensor a, const model::Batch& batch,
             model::Tensor out) override {
    const Row a_log = weight_row(rule.a_log, 0), bias = weight_row(rule.dt_bias, 0);
    Matrix rows(batch.tokens.size(), Row(rule.value_heads * rule.value_dim));
    for (const model::Segment& s : batch.segments) {
      // Of every position, the state before it: for each head [key_dim][value_dim].
      std::vector<Row>& states = states_[{s.sequence, rule.layer}];
      states.resize(s.first_position + 1);
      states[0].assign(rule.value_heads * rule.key_dim * rule.value_dim, 0);
      for (size_t i = s.first_row; i < s.first_row + s.rows; ++i) {
        Row state = states.back();
        for (size_t head = 0; head < rule.value_heads; ++head) {
          const double softplus = std::log1p(std::exp(at(a)[i][head] + bias[head]));
          const double decay = std::exp(-std::exp(a_log[head]) * softplus);
          const double beta = 1 / (1 + std::exp(-at(b)[i][head]));
          const size_t key_head =
              rule.tiled_heads ? head % rule.key_heads : head / (rule.value_heads / rule.key_heads);
          const Row key = unit(at(k)[i], key_head, rule), query = unit(at(q)[i], key_head, rule);
          for (size_t c = 0; c < rule.value_dim; ++c) {
            double* column = &state[head * rule.key_dim * rule.value_dim + c];
            const auto element = [&](size_t n) -> double& { return column[n * rule.value_dim]; };
            double seen = 0, result = 0;
            for (size_t n = 0; n < rule.key_dim; ++n) seen += (element(n) *= decay) * key[n];
            const double change = beta * (at(v)[i][head * rule.value_dim + c] - seen);
            for (size_t n = 0; n < rule.key_dim; ++n)
              result += (element(n) += key[n] * change) * query[n];
            rows[i][head * rule.value_dim + c] =
                result / std::sqrt(static_cast<double>(rule.key_dim));
          }
        }
        states.push_back(std::move(state));
      }
    }
    at(out) = rows;
  }

  void state_space(const model::StateSpaceRule& rule, model::Tensor x, model::Tensor b,
                   model::Tensor c, model::Tensor dt, model::Tensor, const model::Batch& batch,
                   model::Tensor out) override {
    const Row a_log = weight_row(rule.a_log, 0), bias = weight_row(rule.dt_bias, 0);
    const Row skip = weight_row(rule.skip, 0);
    Matrix rows(batch.tokens.size(), Row(rule.heads * rule.head_dim));
    for (const model::Segment& s : batch.segments) {
      // Of every position, the state before it: for each head [state_dim][head_dim].
      std::vector<Row>& states = states_[{s.sequence, rule.layer}];
      states.resize(s.first_position + 1);
      states[0].assign(rule.heads * rule.state_dim * rule.head_dim, 0);
      for (size_t i = s.first_row; i < s.first_row + s.rows; ++i) {
        Row state = states.back();
        for (size_t head = 0; head < rule.heads; ++head) {
          const double step = std::clamp<double>(std::log1p(std::exp(at(dt)[i][head] + bias[head])),
                                                 rule.step_min, rule.step_max);
          const double decay = std::exp(-std::exp(a_log[head]) * step);
          const size_t group = head / (rule.heads / rule.groups) * rule.state_dim;
          for (size_t column = 0; column < rule.head_dim; ++column) {
            const double in = at(x)[i][head * rule.head_dim + column];
            double result = skip[head] * in;
            for (size_t n = 0; n < rule.state_dim; ++n) {
              double& element = state[(head * rule.state_dim + n) * rule.head_dim + column];
              element = decay * element + step * in * at(b)[i][group + n];
              result += element * at(c)[i][group + n];
            }
            rows[i][head * rule.head_dim + column] = result;
          }
        }
        states.push_back(std::move(state));
      }
    }
    at(out) = rows;
  }

  std::span<const model::Choice> route(model::Tensor logits,
                                       const model::RouterRule& rule) override {
    choices_.clear();
    for (const Row& row : at(logits))
      for (const auto& [expert, weight] : chosen_experts(row, rule)) {
        const double own = rule.expert_scale == model::Weight::kNone
                               ? 1
                               : weight_row(rule.expert_scale, 0)[expert];
        choices_.push_back({expert, static_cast<float>(weight * rule.scale * own)});
      }
    return choices_;
  }
  void request(std::span<const model::Weight>,
               std::span<const model::ExpertGroup> experts) override {
    requested_ = experts;
  }
  std::span<const model::ExpertGroup> next_experts() override {
    return std::exchange(requested_, {});
  }
  void scale_slots(model::Tensor x, const model::ExpertPlan& plan, model::Tensor out) override {
    Matrix rows(plan.slot_row.size());
    for (size_t i = 0; i < plan.choice_slot.size(); ++i) {
      Row& row = rows[plan.choice_slot[i]];
      row = at(x)[plan.slot_row[plan.choice_slot[i]]];
      for (double& value : row) value *= plan.choice_weight[i];
    }
    at(out) = rows;
  }
  void activate_slots(const model::ActivationRule& rule, model::Tensor gate, model::Tensor up,
                      std::span<const model::ExpertGroup>) override {
    activate(rule, gate, up);
  }
  void expert_matmul(model::Tensor x, bool x_by_row, const model::ExpertPlan& plan,
                     std::span<const model::ExpertGroup> groups,
                     std::span<const model::Product> products) override {
    for (const model::Product& product : products) {
      const size_t experts = weights_.entries()[static_cast<uint32_t>(product.weight)].experts;
      const size_t height = rows_of(product.weight) / experts;
      Matrix rows(plan.slot_row.size());
      for (const model::ExpertGroup& group : groups)
        for (size_t slot = group.first_slot; slot < group.first_slot + group.slots; ++slot)
          rows[slot] = multiply(product, group.expert * height, height,
                                at(x)[x_by_row ? plan.slot_row[slot] : slot], group.expert);
      at(product.out) = rows;
    }
  }
  void weighted_sum(model::Tensor slots, const model::ExpertPlan& plan,
                    model::Tensor out) override {
    Matrix rows(plan.rows);
    for (size_t row = 0; row < plan.rows; ++row) {
      rows[row].assign(at(slots)[0].size(), 0);
      for (size_t i = row * plan.top_k; i < (row + 1) * plan.top_k; ++i)
        for (size_t c = 0; c < rows[row].size(); ++c)
          rows[row][c] += plan.choice_weight[i] * at(slots)[plan.choice_slot[i]][c];
    }
    at(out) = rows;
  }

  std::span<const float> read(model::Tensor x) override {
    values_.clear();
    for (const Row& row : at(x))
      for (const double value : row) values_.push_back(static_cast<float>(value));
    return values_;
  }
  bool all_finite(model::Tensor x) override {
    return std::ranges::all_of(read(x), [](float value) { return std::isfinite(value); });
  }

 private:
  using KeysAndValues = std::pair<Matrix, Matrix>;

  model::Tensor new_tensor(size_t columns) {
    tensors_.emplace_back();
    columns_.push_back(columns);
    return model::Tensor{static_cast<uint32_t>(tensors_.size() - 1)};
  }
  Matrix& at(model::Tensor tensor) { return tensors_[static_cast<uint32_t>(tensor)]; }
  size_t columns_of(model::Tensor tensor) const { return columns_[static_cast<uint32_t>(tensor)]; }
  size_t rows_of(model::Weight weight) const {
    return weights_.entries()[static_cast<uint32_t>(weight)].rows;
  }
  static constexpr uint32_t kPlusOne = 1u << 31;
  Row weight_row(model::Weight weight, size_t row) const {
    const auto handle = static_cast<uint32_t>(weight);
    const bool plus_one = (handle & kPlusOne) != 0;
    const uint32_t entry = plus_one ? plus_one_[handle & ~kPlusOne] : handle;
    const numerics::WeightView view = weights_.view(entry);
    std::vector<float> values(view.columns);
    numerics::decode_row(view, row, values);
    Row found(values.begin(), values.end());
    for (double& value : found) value += plus_one;
    return found;
  }
  Row multiply(const model::Product& product, size_t first, size_t count, const Row& x,
               size_t bias_row = 0) const {
    Row y;
    const Row bias =
        product.bias == model::Weight::kNone ? Row(count, 0) : weight_row(product.bias, bias_row);
    for (size_t r = 0; r < count; ++r) {
      const Row w = weight_row(product.weight, first + r);
      double sum = bias[r];
      for (size_t i = 0; i < w.size(); ++i) sum += w[i] * x[i];
      y.push_back(sum);
    }
    return y;
  }
  static double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
  static double activated(const model::ActivationRule& rule, double gate, double up) {
    switch (rule.kind) {
      case model::Activation::kSilu: return gate * sigmoid(gate) * up;
      case model::Activation::kGeluTanh: {
        const double inner =
            std::sqrt(2 / std::numbers::pi) * (gate + 0.044715 * std::pow(gate, 3));
        return gate / 2 * (1 + std::tanh(inner)) * up;
      }
      case model::Activation::kClampedSwiglu: {
        const double g = std::min<double>(gate, rule.limit);
        const double u = std::clamp<double>(up, -rule.limit, rule.limit);
        return (u + 1) * g * sigmoid(rule.alpha * g);
      }
      case model::Activation::kRelu2: return std::pow(std::max(gate, 0.0), 2);
    }
    SLUICE_CHECK(false);
  }
  // The indices of the largest values, largest first, the lower index first among equals.
  static std::vector<uint32_t> largest(const Row& values, size_t count) {
    std::vector<uint32_t> order(values.size());
    for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    std::ranges::stable_sort(order, [&](uint32_t a, uint32_t b) { return values[a] > values[b]; });
    order.resize(count);
    return order;
  }
  static Row softmax(Row values) {
    const double most = *std::ranges::max_element(values);
    double total = 0;
    for (double& value : values) total += value = std::exp(value - most);
    for (double& value : values) value /= total;
    return values;
  }
  using Weighted = std::vector<std::pair<uint32_t, double>>;
  Weighted chosen_experts(const Row& logits, const model::RouterRule& rule) const {
    if (rule.score == model::RouterScore::kSparseMixer) return sparse_mixer(logits, rule);
    if (rule.score == model::RouterScore::kSoftmaxOfChosen) {
      Row kept;
      Weighted chosen;
      for (const uint32_t expert : largest(logits, rule.top_k)) kept.push_back(logits[expert]);
      kept = softmax(kept);
      for (const uint32_t expert : largest(logits, rule.top_k))
        chosen.emplace_back(expert, kept[chosen.size()]);
      return chosen;
    }
    const bool by_sigmoid = rule.score == model::RouterScore::kSigmoid;
    Row scores = by_sigmoid ? logits : softmax(logits);
    if (by_sigmoid)
      for (double& score : scores) score = sigmoid(score);
    Row ranked = scores;
    if (rule.correction != model::Weight::kNone) {
      const Row correction = weight_row(rule.correction, 0);
      for (size_t i = 0; i < ranked.size(); ++i) ranked[i] += correction[i];
    }
    Row groups(rule.groups);
    const size_t size = ranked.size() / rule.groups;
    for (size_t group = 0; group < rule.groups; ++group) {
      const auto first = ranked.begin() + static_cast<ptrdiff_t>(group * size);
      const Row members(first, first + static_cast<ptrdiff_t>(size));
      for (const uint32_t best : largest(members, std::min<size_t>(rule.group_best, size)))
        groups[group] += members[best];
    }
    const std::vector<uint32_t> kept = largest(groups, rule.groups_kept);
    for (size_t i = 0; i < ranked.size(); ++i)
      if (std::ranges::find(kept, i / size) == kept.end()) ranked[i] = rule.dropped_score;
    Weighted chosen;
    double total = rule.renormalize ? 0 : 1;
    for (const uint32_t expert : largest(ranked, rule.top_k)) {
      chosen.emplace_back(expert, scores[expert]);
      if (rule.renormalize) total += scores[expert];
    }
    for (auto& [expert, weight] : chosen) weight /= total;
    return chosen;
  }
  static Weighted sparse_mixer(const Row& logits, const model::RouterRule& rule) {
    Weighted chosen;
    Row left = logits;
    for (const uint32_t expert : largest(logits, rule.top_k)) {
      const double most = logits[expert];
      Row near = left;
      for (size_t i = 0; i < near.size(); ++i)
        if (most - logits[i] > 2 * rule.jitter * std::max(std::abs(logits[i]), most))
          near[i] = -HUGE_VAL;
      chosen.emplace_back(expert, softmax(near)[expert]);
      left[expert] = -HUGE_VAL;
    }
    return chosen;
  }
  static void normalise(Row& row, size_t first, size_t count, const Row& scale, double epsilon) {
    double sum = 0;
    for (size_t i = first; i < first + count; ++i) sum += row[i] * row[i];
    const double factor = 1 / std::sqrt(sum / static_cast<double>(count) + epsilon);
    for (size_t i = 0; i < count; ++i) row[first + i] *= factor * scale[i];
  }
  void attend(const model::AttentionRule& rule, size_t head, size_t position, const Row& q,
              const KeysAndValues& kv, const std::vector<size_t>* selected, Row& out) const {
    const size_t d = rule.kv.key_dim, dv = rule.kv.value_dim;
    const size_t kv_head = head / (rule.heads / rule.kv.heads);
    const Matrix& values = rule.kv.values_in_keys ? kv.first : kv.second;
    const size_t value = kv_head * (rule.kv.values_in_keys ? d : dv);
    std::vector<std::pair<size_t, double>> weights;
    double total = 0;
    if (rule.sinks != model::Weight::kNone) total = std::exp(weight_row(rule.sinks, 0)[head]);
    for (size_t p = 0; p <= position; ++p) {
      if (selected != nullptr && std::ranges::find(*selected, p) == selected->end()) continue;
      if (rule.window > 0 && position - p >= rule.window) continue;
      if (rule.chunk > 0 && p / rule.chunk != position / rule.chunk) continue;
      double score = 0;
      for (size_t i = 0; i < d; ++i) score += q[head * d + i] * kv.first[p][kv_head * d + i];
      score *= rule.scale;
      if (rule.softcap > 0) score = rule.softcap * std::tanh(score / rule.softcap);
      weights.emplace_back(p, std::exp(score));
      total += weights.back().second;
    }
    for (const auto& [p, weight] : weights)
      for (size_t i = 0; i < dv; ++i) out[head * dv + i] += weight / total * values[p][value + i];
  }

  static Row unit(const Row& x, size_t head, const model::DeltaRule& rule) {
    Row part(x.begin() + static_cast<ptrdiff_t>(head * rule.key_dim),
             x.begin() + static_cast<ptrdiff_t>((head + 1) * rule.key_dim));
    double sum = double{rule.epsilon};
    for (const double value : part) sum += value * value;
    for (double& value : part) value /= std::sqrt(sum);
    return part;
  }

  const WeightStore& weights_;
  std::vector<uint32_t> plus_one_;  // entries
  std::vector<Matrix> tensors_;
  std::vector<size_t> columns_;  // of each
  std::vector<model::RopeRule> ropes_;
  std::map<std::pair<model::Sequence, uint32_t>, KeysAndValues> kv_;
  std::map<std::tuple<model::Sequence, uint32_t, uint32_t>, Matrix> past_;
  std::map<std::pair<model::Sequence, uint32_t>, std::vector<Row>> states_;
  std::vector<model::Choice> choices_;
  std::vector<std::vector<size_t>> selected_;  // of each row
  std::span<const model::ExpertGroup> requested_;
  std::vector<float> values_;
};

}  // namespace sluice::runtime
