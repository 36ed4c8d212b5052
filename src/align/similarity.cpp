#include "moeweld/align/similarity.h"

#include <algorithm>
#include <cmath>

#include "align/neurons.h"
#include "align/products.h"
#include "moeweld/align/neuron_match.h"

namespace moeweld::align {

namespace {

constexpr std::uint64_t kSketchRows = 256;

std::vector<double> squares_of(std::uint32_t num_experts, ExpertSource& experts, int threads) {
  std::vector<double> result;
  for (std::uint32_t e = 0; e < num_experts; ++e) result.push_back(squared_norm(experts.load(e), threads));
  return result;
}

/// [kSketchRows][num_experts][kDepth]: products go a row at a time.
std::vector<float> sketches_of(std::uint32_t num_experts, ExpertSource& experts, int threads) {
  std::vector<float> result(kSketchRows * num_experts * kDepth);
  std::vector<float> neurons;
  for (std::uint32_t e = 0; e < num_experts; ++e) {
    const ExpertMatrices& expert = experts.load(e);
    sketch_neurons(expert, neurons, threads);
    const std::vector<float> whole = sketch_expert(neurons, expert.num_neurons, kSketchRows);
    for (std::uint64_t row = 0; row < kSketchRows; ++row) {
      std::copy_n(whole.begin() + static_cast<std::ptrdiff_t>(row * kDepth), kDepth,
                  result.begin() + static_cast<std::ptrdiff_t>((row * num_experts + e) * kDepth));
    }
  }
  return result;
}

std::vector<float> cosines_of_rows(std::span<const float> a, std::span<const float> b, std::size_t num_rows) {
  const std::size_t width = a.size() / num_rows;
  const auto dot = [&](const float* x, const float* y) {
    double sum = 0;
    for (std::size_t k = 0; k < width; ++k) sum += static_cast<double>(x[k]) * static_cast<double>(y[k]);
    return sum;
  };
  std::vector<float> result(num_rows * num_rows);
  for (std::size_t i = 0; i < num_rows; ++i) {
    const float* x = a.data() + i * width;
    for (std::size_t j = 0; j < num_rows; ++j) {
      const float* y = b.data() + j * width;
      result[i * num_rows + j] = static_cast<float>(dot(x, y) * reciprocal(std::sqrt(dot(x, x)) * std::sqrt(dot(y, y))));
    }
  }
  return result;
}

}  // namespace

ExpertSimilarities expert_similarities(std::uint32_t num_experts, std::span<const float> router, ExpertSource& experts,
                                       std::span<const float> other_router, ExpertSource& other, int threads,
                                       std::uint64_t exact_similarities) {
  ExpertSimilarities result;
  result.router = cosines_of_rows(router, other_router, num_experts);
  const std::size_t size = num_experts;
  const std::vector<double> squares = squares_of(num_experts, experts, threads);
  const std::vector<double> other_squares = squares_of(num_experts, other, threads);
  const ExpertMatrices& first = experts.load(0);
  const double products = static_cast<double>(size) * static_cast<double>(size) * 3.0 * static_cast<double>(first.num_neurons) *
                          static_cast<double>(first.hidden);
  std::vector<double> dots(size * size);
  if (products <= static_cast<double>(exact_similarities)) {
    for (std::uint32_t i = 0; i < num_experts; ++i) {
      for (std::uint32_t j = 0; j < num_experts; ++j) {
        dots[i * size + j] = keep_neurons(experts.load(i), other.load(j), threads).product;
      }
    }
  } else {
    result.is_sketched = true;
    const std::vector<float> a = sketches_of(num_experts, experts, threads);
    const std::vector<float> b = sketches_of(num_experts, other, threads);
    std::vector<float> sums(size * size);
    for (std::uint64_t row = 0; row < kSketchRows; ++row) {
      const std::size_t at = row * size * kDepth;
      add_products(a.data() + at, size, b.data() + at, size, sums.data(), size, threads);
    }
    dots.assign(sums.begin(), sums.end());
  }
  result.weights.resize(size * size);
  for (std::size_t i = 0; i < size; ++i) {
    for (std::size_t j = 0; j < size; ++j) {
      const double cosine = dots[i * size + j] * reciprocal(std::sqrt(squares[i]) * std::sqrt(other_squares[j]));
      result.weights[i * size + j] = static_cast<float>(std::clamp(cosine, -1.0, 1.0));
    }
  }
  return result;
}

std::uint64_t similarity_bytes(std::uint32_t num_experts, std::uint64_t num_neurons) {
  return 2 * kSketchRows * num_experts * kDepth * sizeof(float) + std::uint64_t{num_experts} * num_experts * 32 +
         num_neurons * (kDepth * sizeof(float) + 64);
}

}  // namespace moeweld::align
