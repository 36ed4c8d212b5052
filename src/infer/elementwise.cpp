#include "infer/elementwise.h"

#include <array>
#include <cmath>

#include "moeweld/base/elementary.h"

namespace moeweld::infer {

void rms_norm(std::span<const float> row, std::span<const float> weight, double epsilon, float* result) {
  constexpr std::size_t kLanes = 16;
  std::array<double, kLanes> lanes{};
  std::size_t i = 0;
  for (; i + kLanes <= row.size(); i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const double value = row[i + lane];
      lanes[lane] += value * value;
    }
  }
  double sum = 0;
  for (; i < row.size(); ++i) sum += static_cast<double>(row[i]) * row[i];
  for (const double lane : lanes) sum += lane;
  const auto scale = static_cast<float>(1.0 / std::sqrt(sum / static_cast<double>(row.size()) + epsilon));
  for (std::size_t k = 0; k < row.size(); ++k) result[k] = weight[k] * (row[k] * scale);
}

void rms_norm(const Plane& input, std::span<const float> weight, double epsilon, int threads, Plane& result) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (std::uint64_t row = 0; row < input.rows; ++row) {
    rms_norm(std::span(input.row(row), input.columns), weight, epsilon, result.row(row));
  }
}

void add_scaled(const Plane& addend, double multiplier, int threads, Plane& stream) {
  const auto factor = static_cast<float>(multiplier);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (std::uint64_t row = 0; row < stream.rows; ++row) {
    const float* from = addend.row(row);
    float* to = stream.row(row);
    for (std::uint64_t column = 0; column < stream.columns; ++column) to[column] += from[column] * factor;
  }
}

float sigmoid(float value) { return static_cast<float>(1.0 / (1.0 + exact_exp(-static_cast<double>(value)))); }

float activate(model::Activation activation, float value) {
  const double x = value;
  switch (activation) {
    case model::Activation::kSilu:
      return static_cast<float>(x / (1.0 + exact_exp(-x)));
    case model::Activation::kGeluTanh: {
      constexpr double kRootTwoOverPi = 0.79788456080286535588;
      const double inner = kRootTwoOverPi * (x + 0.044715 * x * x * x);
      return static_cast<float>(x / (1.0 + exact_exp(-2.0 * inner)));  // 0.5 x (1 + tanh(inner))
    }
    case model::Activation::kRelu:
      return std::isnan(value) || value > 0 ? value : 0.0F;
  }
  return value;
}

bool all_finite(std::span<const float> values) {
  // x - x is 0 for finite numbers and NaN for all others.
  float sum = 0;
  for (const float value : values) sum += value - value;
  return sum == 0.0F;
}

}  // namespace moeweld::infer
