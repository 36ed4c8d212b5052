#include "exec/router_condition.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <string_view>

#include "exec/exchange.h"
#include "exec/generated_rows.h"
#include "exec/lane_sum.h"

namespace moeweld::exec {

namespace {

constexpr double kLargestCondition = 5.0;
constexpr double kSmallestRatio = 1e-14;         ///< of eigenvalues: what float64 leaves of a dependent row
constexpr std::uint64_t kRandomColumns = 512;    ///< of random rows, which are made block by block
constexpr std::uint64_t kMostRandomRows = 4096;  ///< a Gram matrix of more takes too much memory

/// Symmetric, with only the diagonal and what is beside it.
struct Tridiagonal {
  std::vector<double> diagonal;
  std::vector<double> beside;  ///< [i] stands in row i + 1, column i
};

/// Householder's reflections; the eigenvalues stay. `matrix` is symmetric, n x n, and is destroyed.
Tridiagonal tridiagonalise(std::vector<double>& matrix, std::size_t n) {
  Tridiagonal result{std::vector<double>(n), std::vector<double>(n - 1)};
  std::vector<double> mirror(n);
  std::vector<double> product(n);
  for (std::size_t k = 0; k + 1 < n; ++k) {
    const std::size_t first = k + 1;
    const std::size_t size = n - first;
    const auto row = [&](std::size_t i) { return std::span(matrix).subspan(i * n + first, size); };
    const std::span<const double> below = row(k);
    const double norm = std::sqrt(lane_dot(below, below));
    result.diagonal[k] = matrix[k * n + k];
    result.beside[k] = below[0] > 0 ? -norm : norm;
    const std::span<double> v = std::span(mirror).first(size);
    std::copy(below.begin(), below.end(), v.begin());
    v[0] -= result.beside[k];
    const double square = lane_dot(v, v);
    if (square == 0) continue;
    const std::span<double> p = std::span(product).first(size);
    for (std::size_t i = 0; i < size; ++i) p[i] = 2 * lane_dot(row(first + i), v) / square;
    const double half = lane_dot(p, v) / square;
    for (std::size_t i = 0; i < size; ++i) p[i] -= half * v[i];
    for (std::size_t i = 0; i < size; ++i) {
      const std::span<double> target = row(first + i);
      for (std::size_t j = 0; j < size; ++j) target[j] -= v[i] * p[j] + p[i] * v[j];
    }
  }
  result.diagonal[n - 1] = matrix[n * n - 1];
  return result;
}

/// How many eigenvalues are below `x`: the sign changes of Sturm's sequence.
std::size_t num_below(const Tridiagonal& matrix, double x, double tiny) {
  std::size_t count = 0;
  double pivot = 1;
  for (std::size_t i = 0; i < matrix.diagonal.size(); ++i) {
    const double beside = i == 0 ? 0 : matrix.beside[i - 1];
    pivot = matrix.diagonal[i] - x - beside * beside / pivot;
    if (std::abs(pivot) < tiny) pivot = -tiny;
    if (pivot < 0) ++count;
  }
  return count;
}

struct Extremes {
  double smallest, largest;
};

Extremes extreme_eigenvalues(const Tridiagonal& matrix) {
  const std::size_t n = matrix.diagonal.size();
  double bound = 0;  // Gershgorin's circles
  for (std::size_t i = 0; i < n; ++i) {
    const double radius = (i == 0 ? 0 : std::abs(matrix.beside[i - 1])) + (i + 1 == n ? 0 : std::abs(matrix.beside[i]));
    bound = std::max(bound, std::abs(matrix.diagonal[i]) + radius);
  }
  const double tiny = std::max(bound * 1e-30, std::numeric_limits<double>::min());
  const auto bisect = [&](std::size_t wanted) {
    double low = -bound;
    double high = bound;
    for (int step = 0; step < 64; ++step) {
      const double middle = low + (high - low) / 2;
      (num_below(matrix, middle, tiny) >= wanted ? high : low) = middle;
    }
    return high;
  };
  return {bisect(1), bisect(n)};
}

/// From the Gram matrix of the rows, which is destroyed.
double condition_of_gram(std::vector<double>& gram, std::size_t num_rows) {
  if (!std::all_of(gram.begin(), gram.end(), [](double value) { return std::isfinite(value); }))
    return std::numeric_limits<double>::infinity();
  const Extremes found = extreme_eigenvalues(tridiagonalise(gram, num_rows));
  if (!(found.smallest > kSmallestRatio * found.largest)) return std::numeric_limits<double>::infinity();
  return std::sqrt(found.largest / found.smallest);
}

/// gram += rows · rowsᵀ of [num_rows, rows.size() / num_rows].
void add_gram(std::span<const double> rows, std::size_t num_rows, std::vector<double>& gram) {
  const std::size_t width = rows.size() / num_rows;
  for (std::size_t i = 0; i < num_rows; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      gram[i * num_rows + j] += lane_dot(rows.subspan(i * width, width), rows.subspan(j * width, width));
      gram[j * num_rows + i] = gram[i * num_rows + j];
    }
  }
}

double condition_of_random_rows(std::uint64_t seed, const plan::Operation& operation) {
  const std::uint64_t num_rows = operation.task.shape.at(0) / operation.repeat_rows;
  const std::uint64_t width = operation.task.shape.at(1);
  if (num_rows > width) return std::numeric_limits<double>::infinity();
  std::vector<double> gram(num_rows * num_rows);
  std::vector<double> block;
  for (std::uint64_t column = 0; column < width; column += kRandomColumns) {
    const std::uint64_t columns = std::min(kRandomColumns, width - column);
    block.resize(num_rows * columns);
    for (std::uint64_t row = 0; row < num_rows; ++row)
      fill_random(seed, operation, row * width + column, std::span(block).subspan(row * columns, columns));
    add_gram(block, num_rows, gram);
  }
  return condition_of_gram(gram, num_rows);
}

/// The first number between dots of "model.layers.3.mlp.gate.weight"; nothing if there is none.
std::optional<std::uint32_t> layer_of(std::string_view name) {
  while (!name.empty()) {
    const std::string_view part = name.substr(0, name.find('.'));
    std::uint32_t number = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), number);
    if (error == std::errc() && end == part.data() + part.size()) return number;
    name.remove_prefix(std::min(name.size(), part.size() + 1));
  }
  return std::nullopt;
}

constexpr const char* kDegenerate = " are degenerate (condition number above 5)";

/// "layer 3", "layers 3, 4"
std::string list_of(const std::vector<std::uint32_t>& layers) {
  std::string text = layers.size() == 1 ? "layer " : "layers ";
  for (std::size_t i = 0; i < layers.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(layers[i]);
  return text;
}

}  // namespace

double condition_number(std::span<const double> rows, std::size_t num_rows) {
  if (num_rows > rows.size() / num_rows) return std::numeric_limits<double>::infinity();
  std::vector<double> gram(num_rows * num_rows);
  add_gram(rows, num_rows, gram);
  return condition_of_gram(gram, num_rows);
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
  const bool all = layers.size() == num_groups && (num_groups > 1 || slot.layers.empty());
  return "the routers of " + (all ? "all layers" : list_of(layers)) + kDegenerate +
         ": the prompts of some experts are too much alike, and those experts will get few tokens, or all the same";
}

std::optional<std::string> degenerate_random_routers(Peers& peers, const plan::MergePlan& plan, int threads) {
  std::vector<const plan::Operation*> routers;
  for (const plan::Operation& operation : plan.operations) {
    if (operation.kind != plan::Operation::Kind::kRandomFill || operation.task.shape.size() != 2) continue;
    const std::uint64_t num_rows = operation.task.shape[0] / operation.repeat_rows;
    if (num_rows > 1 && num_rows <= kMostRandomRows) routers.push_back(&operation);
  }
  if (routers.empty()) return std::nullopt;
  const auto gathered = exchange(peers, [&] {
    std::vector<char> is_degenerate(routers.size());
    const auto first = static_cast<std::size_t>(peers.rank());
    const auto step = static_cast<std::size_t>(peers.size());
#pragma omp parallel for schedule(dynamic, 1) num_threads(std::max(1, threads))
    for (std::size_t i = first; i < routers.size(); i += step)
      is_degenerate[i] = condition_of_random_rows(plan.seed, *routers[i]) > kLargestCondition ? 1 : 0;
    std::vector<std::uint32_t> layers;
    for (std::size_t i = 0; i < routers.size(); ++i) {
      if (is_degenerate[i] != 0) layers.push_back(layer_of(routers[i]->name).value_or(0));
    }
    return to_archive(layers);
  });
  std::vector<std::uint32_t> layers;
  for (const auto& bytes : gathered) {
    const auto own = from_archive<std::vector<std::uint32_t>>(bytes);
    layers.insert(layers.end(), own.begin(), own.end());
  }
  if (layers.empty()) return std::nullopt;
  std::sort(layers.begin(), layers.end());
  const plan::Operation& some = *routers.front();
  return "the random routers of " + (layers.size() == routers.size() && layers.size() > 1 ? "all layers" : list_of(layers)) + kDegenerate +
         ": random rows for " + std::to_string(some.task.shape[0] / some.repeat_rows) + " experts are too much alike where each has only " +
         std::to_string(some.task.shape[1]) + " numbers; gate_mode: orthogonal makes them as unlike as can be";
}

}  // namespace moeweld::exec
