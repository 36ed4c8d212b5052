#include "exec/router_condition.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "exec/lane_sum.h"

namespace moeweld::exec {

namespace {

constexpr double kLargestCondition = 5.0;
constexpr double kSmallestRatio = 1e-16;  ///< of eigenvalues: what float64 leaves of a dependent row
constexpr int kMostSweeps = 30;

/// Diagonalises the symmetric n x n matrix in place.
void diagonalise(std::vector<double>& matrix, std::size_t n) {
  for (int sweep = 0; sweep < kMostSweeps; ++sweep) {
    double off = 0;
    double diagonal = 0;
    for (std::size_t i = 0; i < n; ++i) {
      diagonal += matrix[i * n + i] * matrix[i * n + i];
      for (std::size_t j = 0; j < i; ++j) off += matrix[i * n + j] * matrix[i * n + j];
    }
    if (off <= 1e-30 * diagonal) return;
    for (std::size_t p = 0; p + 1 < n; ++p) {
      for (std::size_t q = p + 1; q < n; ++q) {
        const double pq = matrix[p * n + q];
        if (pq == 0) continue;
        const double ratio = (matrix[q * n + q] - matrix[p * n + p]) / (2 * pq);
        const double tangent = (ratio >= 0 ? 1.0 : -1.0) / (std::abs(ratio) + std::sqrt(ratio * ratio + 1));
        const double cosine = 1 / std::sqrt(tangent * tangent + 1);
        const double sine = tangent * cosine;
        for (std::size_t k = 0; k < n; ++k) {
          const double a = matrix[k * n + p];
          const double b = matrix[k * n + q];
          matrix[k * n + p] = cosine * a - sine * b;
          matrix[k * n + q] = sine * a + cosine * b;
        }
        for (std::size_t k = 0; k < n; ++k) {
          const double a = matrix[p * n + k];
          const double b = matrix[q * n + k];
          matrix[p * n + k] = cosine * a - sine * b;
          matrix[q * n + k] = sine * a + cosine * b;
        }
      }
    }
  }
}

std::string list_of(const std::vector<std::uint32_t>& layers) {
  std::string text;
  for (std::size_t i = 0; i < layers.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(layers[i]);
  return text;
}

}  // namespace

double condition_number(std::span<const double> rows, std::size_t num_rows) {
  const std::size_t width = rows.size() / num_rows;
  if (num_rows > width) return std::numeric_limits<double>::infinity();
  std::vector<double> gram(num_rows * num_rows);
  for (std::size_t i = 0; i < num_rows; ++i) {
    for (std::size_t j = 0; j <= i; ++j)
      gram[i * num_rows + j] = gram[j * num_rows + i] = lane_dot(rows.subspan(i * width, width), rows.subspan(j * width, width));
  }
  if (!std::all_of(gram.begin(), gram.end(), [](double value) { return std::isfinite(value); }))
    return std::numeric_limits<double>::infinity();
  diagonalise(gram, num_rows);
  double smallest = gram[0];
  double largest = gram[0];
  for (std::size_t i = 1; i < num_rows; ++i) {
    smallest = std::min(smallest, gram[i * num_rows + i]);
    largest = std::max(largest, gram[i * num_rows + i]);
  }
  if (!(smallest > kSmallestRatio * largest)) return std::numeric_limits<double>::infinity();
  return std::sqrt(largest / smallest);
}

std::optional<std::string> degenerate_layers(const plan::Slot& slot, std::span<const double> rows, int threads) {
  const std::size_t width = slot.shape.at(1);
  const std::size_t stride = slot.rows_per_layer() * width;
  const std::size_t num_experts = slot.rows_per_layer() - (slot.num_shared == 0 ? 0 : 1);
  const std::size_t num_groups = rows.size() / stride;
  std::vector<char> is_degenerate(num_groups);
#pragma omp parallel for schedule(dynamic, 1) num_threads(std::max(1, threads))
  for (std::size_t group = 0; group < num_groups; ++group)
    is_degenerate[group] = condition_number(rows.subspan(group * stride, num_experts * width), num_experts) > kLargestCondition ? 1 : 0;

  std::vector<std::uint32_t> layers;
  for (std::size_t group = 0; group < num_groups; ++group) {
    if (is_degenerate[group] != 0) layers.push_back(slot.layers.empty() ? 0 : slot.layers[group]);
  }
  if (layers.empty()) return std::nullopt;
  const std::string which = layers.size() == num_groups
                                ? (num_groups == 1 && slot.layers.size() == 1 ? "layer " + list_of(layers) : "all layers")
                            : layers.size() == 1 ? "layer " + list_of(layers)
                                                 : "layers " + list_of(layers);
  return "the routers of " + which +
         " are degenerate (condition number above 5): the prompts of some experts are too much alike, and those experts will get few "
         "tokens, "
         "or all the same";
}

}  // namespace moeweld::exec
