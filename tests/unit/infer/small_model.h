#pragma once
/// A transformer of random weights in one file, and its forward pass written plainly in float64.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "moeweld/infer/forward.h"
#include "moeweld/model/transformer.h"
#include "moeweld/storage/storage.h"
#include "unit/temporary_directory.h"

namespace moeweld::infer {

struct SmallModelOptions {
  std::uint64_t hidden = 160, width = 300, vocabulary = 300, heads = 4, kv_heads = 2, head_dim = 40, layers = 2;
  DType dtype = DType::kBF16;
  bool biases = false, head_norms = false, tied = false;
  std::uint64_t sliding_window = 0;
  std::uint64_t experts = 0, experts_per_token = 2;  ///< experts 0: dense
  bool normalise = true, shared = false, shared_gate = false;
  std::uint64_t dense_layers = 0;  ///< the first ones of a mixture
  unsigned seed = 1;
};

/// Weights are small multiples of powers of two: every dtype holds them exactly.
class SmallModel {
 public:
  explicit SmallModel(const SmallModelOptions& o) : random_(o.seed) {
    model::Transformer& m = model;
    m.family = o.experts == 0 ? "llama" : "mixtral";
    m.hidden_size = o.hidden;
    m.vocabulary_size = o.vocabulary;
    m.num_heads = o.heads;
    m.num_kv_heads = o.kv_heads;
    m.head_dim = o.head_dim;
    m.rms_norm_eps = 1e-5;
    m.rope = {.theta = 10000.0, .rotary_dim = o.head_dim, .max_positions = 4096, .original_max_positions = 4096};
    m.attention_multiplier = 1.0 / std::sqrt(static_cast<double>(o.head_dim));
    m.experts_per_token = o.experts == 0 ? 0 : o.experts_per_token;
    m.normalise_expert_weights = o.normalise;
    const auto matrix = [&](std::uint64_t rows, std::uint64_t columns) { return add(rows, columns, o.dtype, false); };
    const auto norm = [&](std::uint64_t columns) { return add(1, columns, o.dtype, true); };
    const auto bias = [&](std::uint64_t columns) { return o.biases ? add(1, columns, o.dtype, false) : model::Weight{}; };
    const auto ffn = [&](std::uint64_t width) {
      model::GatedFfn result;
      result.gate = matrix(width, o.hidden);
      result.up = matrix(width, o.hidden);
      result.down = matrix(o.hidden, width);
      return result;
    };
    m.token_embedding = matrix(o.vocabulary, o.hidden);
    m.final_norm = norm(o.hidden);
    m.head = o.tied ? m.token_embedding : matrix(o.vocabulary, o.hidden);
    for (std::uint64_t layer = 0; layer < o.layers; ++layer) {
      model::TransformerLayer& l = m.layers.emplace_back();
      l.input_norm = norm(o.hidden);
      l.post_attention_norm = norm(o.hidden);
      l.q = matrix(o.heads * o.head_dim, o.hidden);
      l.k = matrix(o.kv_heads * o.head_dim, o.hidden);
      l.v = matrix(o.kv_heads * o.head_dim, o.hidden);
      l.o = matrix(o.hidden, o.heads * o.head_dim);
      l.q_bias = bias(o.heads * o.head_dim);
      l.k_bias = bias(o.kv_heads * o.head_dim);
      l.v_bias = bias(o.kv_heads * o.head_dim);
      l.o_bias = bias(o.hidden);
      if (o.head_norms) {
        l.q_norm = norm(o.head_dim);
        l.k_norm = norm(o.head_dim);
      }
      l.sliding_window = o.sliding_window;
      if (o.experts == 0 || layer < o.dense_layers) {
        l.ffn = ffn(o.width);
        l.ffn.gate_bias = bias(o.width);
        l.ffn.up_bias = bias(o.width);
        l.ffn.down_bias = bias(o.hidden);
        continue;
      }
      l.router = matrix(o.experts, o.hidden);
      for (std::uint64_t expert = 0; expert < o.experts; ++expert) l.experts.push_back(ffn(o.width));
      if (o.shared) l.ffn = ffn(o.width + 50);
      if (o.shared_gate) l.shared_gate = add(1, o.hidden, o.dtype, false);
    }
    const std::string path = directory_.write("weights", bytes_);
    m.files.push_back({path, storage->identity(path).value()});
  }

  const std::vector<double>& values(const model::Weight& weight) const { return values_.at(weight.begin); }

  model::Transformer model;
  std::shared_ptr<Storage> storage = make_posix_storage();

 private:
  model::Weight add(std::uint64_t rows, std::uint64_t columns, DType dtype, bool around_one) {
    bytes_.append(3, '\0');  // nothing in a checkpoint promises alignment
    const model::Weight weight{.dtype = dtype, .file = 0, .begin = bytes_.size(), .rows = rows, .columns = columns};
    std::vector<double>& values = values_[weight.begin];
    std::uniform_int_distribution<int> pick(-127, 127);
    const double scale = rows == 1 ? 1.0 : 1.0 / 2;  // keeps activations of order one
    for (std::uint64_t i = 0; i < rows * columns; ++i) {
      append(dtype, values.emplace_back(around_one ? 0.5 + std::abs(pick(random_)) / 256.0 : pick(random_) / 256.0 * scale));
    }
    return weight;
  }
  void append(DType dtype, double value) {
    const auto single = static_cast<float>(value);
    std::uint32_t bits = 0;
    std::memcpy(&bits, &single, sizeof bits);
    const auto put = [&](const void* data, std::size_t size) { bytes_.append(static_cast<const char*>(data), size); };
    if (dtype == DType::kF64) put(&value, 8);
    if (dtype == DType::kF32) put(&single, 4);
    if (dtype == DType::kBF16) {
      const auto code = static_cast<std::uint16_t>(bits >> 16);
      put(&code, 2);
    }
    if (dtype == DType::kF16) {
      const auto exponent = static_cast<int>(bits >> 23 & 0xff) - 127;
      const std::uint32_t code =
          value == 0 ? 0 : (bits >> 16 & 0x8000) | static_cast<std::uint32_t>(exponent + 15) << 10 | (bits >> 13 & 0x3ff);
      const auto half = static_cast<std::uint16_t>(code);
      put(&half, 2);
    }
  }

  std::mt19937 random_;
  std::string bytes_;
  std::map<std::uint64_t, std::vector<double>> values_;
  TemporaryDirectory directory_;
};

using Vector = std::vector<double>;
using Rows = std::vector<Vector>;

struct NaiveResult {
  std::vector<Rows> layer_inputs;   ///< [layer][token][hidden]
  std::vector<Rows> router_inputs;  ///< [layer][token][hidden]
  Rows logits;                      ///< [token][vocabulary]
};

/// One sequence, straight from the formulas.
class NaiveForward {
 public:
  explicit NaiveForward(const SmallModel& small) : small_(small), m_(small.model) {}

  NaiveResult run(const TokenIds& ids) const {
    NaiveResult result;
    Rows x;
    for (const std::int64_t id : ids) {
      const Vector& table = small_.values(m_.token_embedding);
      const auto begin = table.begin() + id * static_cast<std::int64_t>(m_.hidden_size);
      x.emplace_back(begin, begin + static_cast<std::int64_t>(m_.hidden_size));
      for (double& value : x.back()) value *= m_.embedding_multiplier;
    }
    for (const model::TransformerLayer& layer : m_.layers) {
      result.layer_inputs.push_back(x);
      const Rows attended = attention(layer, x);
      for (std::size_t t = 0; t < x.size(); ++t) add(attended[t], m_.residual_multiplier, x[t]);
      Rows& normed = result.router_inputs.emplace_back();
      for (Vector& row : x) {
        normed.push_back(norm(row, layer.post_attention_norm));
        add(feed_forward(layer, normed.back()), m_.residual_multiplier, row);
      }
    }
    for (const Vector& row : x) {
      result.logits.push_back(times(m_.head, {}, norm(row, m_.final_norm)));
      for (double& value : result.logits.back()) value /= m_.logits_divisor;
    }
    return result;
  }

 private:
  static void add(const Vector& from, double factor, Vector& to) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] += factor * from[i];
  }
  Vector norm(const Vector& x, const model::Weight& weight) const {
    double square = 0;
    for (const double value : x) square += value * value;
    Vector result;
    for (std::size_t i = 0; i < x.size(); ++i)
      result.push_back(x[i] / std::sqrt(square / static_cast<double>(x.size()) + m_.rms_norm_eps) * small_.values(weight)[i]);
    return result;
  }
  Vector times(const model::Weight& weight, const model::Weight& bias, const Vector& x) const {
    const Vector& w = small_.values(weight);
    Vector result;
    for (std::uint64_t r = 0; r < weight.rows; ++r) {
      double sum = bias.is_present() ? small_.values(bias)[r] : 0;
      for (std::uint64_t c = 0; c < weight.columns; ++c) sum += w[r * weight.columns + c] * x[c];
      result.push_back(sum);
    }
    return result;
  }
  Vector head_of(const Vector& all, std::uint64_t head, const model::Weight& weight, std::size_t position, bool rotates) const {
    const std::uint64_t dim = m_.head_dim;
    Vector head_values(all.begin() + static_cast<std::int64_t>(head * dim), all.begin() + static_cast<std::int64_t>((head + 1) * dim));
    if (weight.is_present()) head_values = norm(head_values, weight);
    if (!rotates) return head_values;
    Vector result = head_values;
    for (std::uint64_t i = 0; i < dim / 2; ++i) {
      const double angle =
          static_cast<double>(position) * std::pow(m_.rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(dim));
      result[i] = head_values[i] * std::cos(angle) - head_values[i + dim / 2] * std::sin(angle);
      result[i + dim / 2] = head_values[i + dim / 2] * std::cos(angle) + head_values[i] * std::sin(angle);
    }
    return result;
  }
  Rows attention(const model::TransformerLayer& layer, const Rows& x) const {
    Rows q, k, v;
    for (const Vector& row : x) {
      const Vector normed = norm(row, layer.input_norm);
      q.push_back(times(layer.q, layer.q_bias, normed));
      k.push_back(times(layer.k, layer.k_bias, normed));
      v.push_back(times(layer.v, layer.v_bias, normed));
    }
    Rows result;
    for (std::size_t t = 0; t < x.size(); ++t) {
      Vector heads;
      for (std::uint64_t head = 0; head < m_.num_heads; ++head) {
        const std::uint64_t kv = head / (m_.num_heads / m_.num_kv_heads);
        const Vector query = head_of(q[t], head, layer.q_norm, t, true);
        Vector weights;
        double sum = 0;
        const std::size_t first = layer.sliding_window != 0 && t + 1 > layer.sliding_window ? t + 1 - layer.sliding_window : 0;
        for (std::size_t s = first; s <= t; ++s) {
          const Vector key = head_of(k[s], kv, layer.k_norm, s, true);
          double dot = 0;
          for (std::size_t i = 0; i < key.size(); ++i) dot += query[i] * key[i];
          sum += weights.emplace_back(std::exp(dot * m_.attention_multiplier));
        }
        Vector value(m_.head_dim);
        for (std::size_t s = first; s <= t; ++s) add(head_of(v[s], kv, {}, s, false), weights[s - first] / sum, value);
        heads.insert(heads.end(), value.begin(), value.end());
      }
      result.push_back(times(layer.o, layer.o_bias, heads));
    }
    return result;
  }
  Vector gated(const model::GatedFfn& ffn, const Vector& x) const {
    Vector inner = times(ffn.gate, ffn.gate_bias, x);
    const Vector up = times(ffn.up, ffn.up_bias, x);
    for (std::size_t i = 0; i < inner.size(); ++i) inner[i] = inner[i] / (1 + std::exp(-inner[i])) * up[i];
    return times(ffn.down, ffn.down_bias, inner);
  }
  Vector feed_forward(const model::TransformerLayer& layer, const Vector& x) const {
    if (!layer.router.is_present()) return gated(layer.ffn, x);
    const Vector logits = times(layer.router, {}, x);
    double total = 0;
    for (const double logit : logits) total += std::exp(logit);
    std::vector<std::pair<double, std::size_t>> order;
    for (std::size_t e = 0; e < logits.size(); ++e) order.emplace_back(-std::exp(logits[e]) / total, e);
    std::sort(order.begin(), order.end());
    order.resize(m_.experts_per_token);
    double chosen = 0;
    for (const auto& [negative, expert] : order) chosen -= negative;
    Vector result(m_.hidden_size);
    for (const auto& [negative, expert] : order)
      add(gated(layer.experts[expert], x), -negative / (m_.normalise_expert_weights ? chosen : 1.0), result);
    if (layer.ffn.gate.is_present()) {
      const double gate = layer.shared_gate.is_present() ? 1 / (1 + std::exp(-times(layer.shared_gate, {}, x)[0])) : 1.0;
      add(gated(layer.ffn, x), gate, result);
    }
    return result;
  }

  const SmallModel& small_;
  const model::Transformer& m_;
};

}  // namespace moeweld::infer
