#pragma once
/// Layers of experts in memory, and what can be done to them without changing what they compute.

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "moeweld/align/expert_matrices.h"

namespace moeweld::align {

using Order = std::vector<std::uint32_t>;

inline Order identity(std::size_t size) {
  Order order(size);
  std::iota(order.begin(), order.end(), 0U);
  return order;
}

inline Order shuffled(std::size_t size, std::mt19937& random) {
  Order order = identity(size);
  std::shuffle(order.begin(), order.end(), random);
  return order;
}

struct Expert {
  std::size_t num_neurons = 0;
  std::size_t hidden = 0;
  std::vector<float> gate, up, down;

  ExpertMatrices matrices() const {
    const auto stored = [](const std::vector<float>& values) {
      return StoredMatrix{DType::kF32, reinterpret_cast<const std::byte*>(values.data())};
    };
    return {num_neurons, hidden, stored(gate), stored(up), stored(down)};
  }
  /// All 3·hidden numbers of a neuron.
  std::vector<double> neuron(std::size_t n) const {
    std::vector<double> result(gate.begin() + static_cast<std::ptrdiff_t>(n * hidden),
                               gate.begin() + static_cast<std::ptrdiff_t>((n + 1) * hidden));
    result.insert(result.end(), up.begin() + static_cast<std::ptrdiff_t>(n * hidden),
                  up.begin() + static_cast<std::ptrdiff_t>((n + 1) * hidden));
    for (std::size_t h = 0; h < hidden; ++h) result.push_back(down[h * num_neurons + n]);
    return result;
  }
};

inline Expert random_expert(std::size_t num_neurons, std::size_t hidden, std::mt19937& random) {
  std::normal_distribution<float> normal(0.0F, 0.05F);
  Expert expert{num_neurons, hidden, std::vector<float>(num_neurons * hidden), std::vector<float>(num_neurons * hidden),
                std::vector<float>(num_neurons * hidden)};
  for (std::vector<float>* matrix : {&expert.gate, &expert.up, &expert.down}) {
    for (float& value : *matrix) value = normal(random);
  }
  return expert;
}

inline Expert with_noise(Expert expert, float scale, std::mt19937& random) {
  std::normal_distribution<float> normal(0.0F, scale);
  for (std::vector<float>* matrix : {&expert.gate, &expert.up, &expert.down}) {
    for (float& value : *matrix) value += normal(random);
  }
  return expert;
}

/// Neuron n of the result is neuron order[n] of `expert`.
inline Expert permuted(const Expert& expert, const Order& order) {
  Expert result = expert;
  for (std::size_t n = 0; n < order.size(); ++n) {
    for (std::size_t h = 0; h < expert.hidden; ++h) {
      result.gate[n * expert.hidden + h] = expert.gate[order[n] * expert.hidden + h];
      result.up[n * expert.hidden + h] = expert.up[order[n] * expert.hidden + h];
      result.down[h * expert.num_neurons + n] = expert.down[h * expert.num_neurons + order[n]];
    }
  }
  return result;
}

inline Order inverse(const Order& order) {
  Order result(order.size());
  for (std::uint32_t i = 0; i < order.size(); ++i) result[order[i]] = i;
  return result;
}

struct Layer : ExpertSource {
  std::vector<Expert> experts;
  std::vector<float> router;
  ExpertMatrices loaded;
  const ExpertMatrices& load(std::uint32_t expert) override { return loaded = experts.at(expert).matrices(); }
};

inline Layer random_layer(std::size_t num_experts, std::size_t num_neurons, std::size_t hidden, std::mt19937& random) {
  Layer layer;
  for (std::size_t e = 0; e < num_experts; ++e) layer.experts.push_back(random_expert(num_neurons, hidden, random));
  std::normal_distribution<float> normal(0.3F, 0.1F);  // all rows have something in common
  layer.router.resize(num_experts * hidden);
  for (float& value : layer.router) value = normal(random);
  return layer;
}

/// Expert e of the result is expert order[e] of `layer`, its neurons in the order neurons[e].
inline Layer permuted(const Layer& layer, const Order& order, const std::vector<Order>& neurons) {
  Layer result = layer;
  const std::size_t hidden = layer.experts.front().hidden;
  for (std::size_t e = 0; e < order.size(); ++e) {
    result.experts[e] = permuted(layer.experts[order[e]], neurons[e]);
    for (std::size_t h = 0; h < hidden; ++h) result.router[e * hidden + h] = layer.router[order[e] * hidden + h];
  }
  return result;
}

}  // namespace moeweld::align
