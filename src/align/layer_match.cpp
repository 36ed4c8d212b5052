#include "moeweld/align/layer_match.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "align/neurons.h"
#include "align/products.h"
#include "moeweld/align/assignment.h"
#include "moeweld/align/neuron_match.h"
#include "moeweld/base/error.h"

namespace moeweld::align {

namespace {

/// Numbers of a sketched neuron that go into the Gram matrix of an expert.
constexpr std::size_t kGramWidth = kDepth / 2;
constexpr std::size_t kSignature = kGramWidth * kGramWidth;
/// A runner-up is looked at exactly where its similarity is at least this part of the chosen one's.
constexpr float kNearRunnerUp = 0.5F;

using Pair = std::pair<std::uint32_t, std::uint32_t>;

std::vector<double> centred(std::span<const float> rows, std::size_t num_rows) {
  const std::size_t width = num_rows == 0 ? 0 : rows.size() / num_rows;
  std::vector<double> mean(width);
  for (std::size_t i = 0; i < rows.size(); ++i) mean[i % width] += rows[i];
  std::vector<double> result(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) result[i] = rows[i] - mean[i % width] / static_cast<double>(num_rows);
  return result;
}

double dot(const double* a, const double* b, std::size_t count) {
  double sum = 0;
  for (std::size_t i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

double norm(const std::vector<double>& values) { return std::sqrt(dot(values.data(), values.data(), values.size())); }

/// Inner products of a's rows with b's, divided by the root mean squares of their lengths.
std::vector<double> similarity_of_rows(const std::vector<double>& a, const std::vector<double>& b, std::size_t num_rows) {
  const std::size_t width = a.size() / num_rows;
  const double scale = static_cast<double>(num_rows) * reciprocal(norm(a) * norm(b));
  std::vector<double> result(num_rows * num_rows);
  for (std::size_t i = 0; i < num_rows; ++i) {
    for (std::size_t j = 0; j < num_rows; ++j) result[i * num_rows + j] = scale * dot(a.data() + i * width, b.data() + j * width, width);
  }
  return result;
}

/// What an expert looks like whatever the order of its neurons: Σ_n s_n s_nᵀ over its sketched neurons s_n.
std::vector<float> gram_of_neurons(const std::vector<float>& sketches, std::uint64_t num_neurons, int threads) {
  std::vector<float> result(kSignature);
  std::vector<float> columns(kGramWidth * kDepth);
  for (std::uint64_t first = 0; first < num_neurons; first += kDepth) {
    const std::uint64_t count = std::min<std::uint64_t>(kDepth, num_neurons - first);
    std::fill(columns.begin(), columns.end(), 0.0F);
    for (std::uint64_t n = 0; n < count; ++n) {
      const float* const sketch = sketches.data() + (first + n) * kDepth;
      for (std::size_t k = 0; k < kGramWidth; ++k) columns[k * kDepth + n] = sketch[k] + sketch[k + kGramWidth];
    }
    add_products(columns.data(), kGramWidth, columns.data(), kGramWidth, result.data(), kGramWidth, threads);
  }
  return result;
}

/// Similarities of signatures less each model's mean.
std::vector<double> similarity_of_signatures(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b,
                                             int threads) {
  const std::size_t size = a.size();
  const auto gather = [&](const std::vector<std::vector<float>>& signatures) {
    std::vector<float> rows;
    rows.reserve(size * kSignature);
    for (const std::vector<float>& signature : signatures) rows.insert(rows.end(), signature.begin(), signature.end());
    std::vector<double> mean(kSignature);
    for (std::size_t i = 0; i < rows.size(); ++i) mean[i % kSignature] += rows[i] / static_cast<double>(size);
    double square = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      rows[i] = static_cast<float>(rows[i] - mean[i % kSignature]);
      square += static_cast<double>(rows[i]) * rows[i];
    }
    const double scale = reciprocal(std::sqrt(square / static_cast<double>(size)));
    for (float& value : rows) value = static_cast<float>(value * scale);
    return rows;
  };
  const std::vector<float> rows_a = gather(a);
  const std::vector<float> rows_b = gather(b);
  std::vector<float> part_a(size * kDepth);
  std::vector<float> part_b(size * kDepth);
  std::vector<float> products(size * size);
  for (std::size_t first = 0; first < kSignature; first += kDepth) {
    for (std::size_t i = 0; i < size; ++i) {
      std::copy_n(rows_a.begin() + static_cast<std::ptrdiff_t>(i * kSignature + first), kDepth,
                  part_a.begin() + static_cast<std::ptrdiff_t>(i * kDepth));
      std::copy_n(rows_b.begin() + static_cast<std::ptrdiff_t>(i * kSignature + first), kDepth,
                  part_b.begin() + static_cast<std::ptrdiff_t>(i * kDepth));
    }
    add_products(part_a.data(), size, part_b.data(), size, products.data(), size, threads);
  }
  return {products.begin(), products.end()};
}

std::vector<float> to_floats(const std::vector<double>& values) {
  std::vector<float> result(values.size());
  std::transform(values.begin(), values.end(), result.begin(), [](double value) { return static_cast<float>(value); });
  return result;
}

/// Products of larger numbers may overflow float32.
constexpr double kLargestSquare = 1e30;

void check_finite(double square, const char* what) {
  if (square <= kLargestSquare) return;
  throw Error(ErrorCode::kInvalidInput, std::string(what) + " hold NaN, infinity or numbers too large to compare");
}

bool is_identity(const std::vector<std::uint32_t>& order) {
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (order[i] != i) return false;
  }
  return true;
}

/// One layer of the reference with one of another model.
class PairOfLayers {
 public:
  PairOfLayers(const LayerTask& task, ExpertSource& a, ExpertSource& b) : task_(task), size_(task.num_experts), a_(a), b_(b) {}

  /// Throws Error(kInvalidInput) for what is not finite.
  void measure_norms() {
    for (std::uint32_t e = 0; e < size_; ++e) {
      square_a_ += squared_norm(a_.load(e), task_.threads);
      square_b_ += squared_norm(b_.load(e), task_.threads);
    }
    check_finite(square_a_, "the expert weights of the layer it is matched to");
    check_finite(square_b_, "its expert weights");
  }
  double scale() const { return static_cast<double>(size_) * reciprocal(std::sqrt(square_a_) * std::sqrt(square_b_)); }

  const NeuronMatch& compare(const Pair& pair) {
    const auto [known, is_new] = known_.try_emplace(pair);
    if (is_new) {
      const ExpertMatrices& a = a_.load(pair.first);
      const ExpertMatrices& b = b_.load(pair.second);
      known->second = task_.neurons ? match_neurons(a, b, task_.threads) : keep_neurons(a, b, task_.threads);
    }
    return known->second;
  }
  /// Its order is not needed any more.
  void forget_order(const Pair& pair) { std::vector<std::uint32_t>().swap(known_[pair].order); }

  double in_place(std::uint32_t expert) { return keep_neurons(a_.load(expert), b_.load(expert), task_.threads).product; }

  /// Assigns experts by exact products of some pairs; `more` is added to each.
  std::vector<std::uint32_t> assign_exactly(const std::set<Pair>& pairs, const std::vector<double>& more) {
    std::vector<double> values(size_ * size_);
    double least = std::numeric_limits<double>::infinity();
    double most = -least;
    for (const Pair& pair : pairs) {
      double& value = values[pair.first * size_ + pair.second];
      value = compare(pair).product * scale() + (more.empty() ? 0.0 : more[pair.first * size_ + pair.second]);
      least = std::min(least, value);
      most = std::max(most, value);
      if (pairs.size() == size_ * size_) forget_order(pair);
    }
    // No pair that was not looked at can be part of the best assignment.
    const double outside = least - static_cast<double>(size_) * (most - least) - 1.0;
    for (std::uint32_t i = 0; i < size_; ++i) {
      for (std::uint32_t j = 0; j < size_; ++j) {
        if (!pairs.contains({i, j})) values[i * size_ + j] = outside;
      }
    }
    return assign_in_groups(to_floats(values), size_, task_.num_groups);
  }

  void finish(LayerMatch& match) {
    double before = 0;
    double after = 0;
    for (std::uint32_t e = 0; e < size_; ++e) {
      const Pair pair{e, match.experts[e]};
      if (task_.neurons && known_.contains(pair) && known_[pair].order.empty()) known_.erase(pair);
      const NeuronMatch& own = compare(pair);
      after += own.product;
      before += pair.second == e && is_identity(own.order) ? own.product : in_place(e);
      if (task_.neurons) match.neurons.push_back(own.order);
    }
    match.before.weights = before * scale() / static_cast<double>(size_);
    match.after.weights = after * scale() / static_cast<double>(size_);
  }

 private:
  const LayerTask& task_;
  const std::size_t size_;
  ExpertSource& a_;
  ExpertSource& b_;
  double square_a_ = 0;
  double square_b_ = 0;
  std::map<Pair, NeuronMatch> known_;
};

/// The pairs of an assignment, runners-up that come near, and what those would leave to each other.
std::set<Pair> likely_pairs(const std::vector<float>& similarity, const std::vector<std::uint32_t>& assigned) {
  const auto size = static_cast<std::uint32_t>(assigned.size());
  std::vector<std::uint32_t> owner(size);
  for (std::uint32_t i = 0; i < size; ++i) owner[assigned[i]] = i;
  std::set<Pair> pairs;
  for (std::uint32_t i = 0; i < size; ++i) {
    pairs.insert({i, assigned[i]});
    const float* const row = similarity.data() + std::size_t{i} * size;
    std::uint32_t best = assigned[i];
    for (std::uint32_t j = 0; j < size; ++j) {
      if (j != assigned[i] && (best == assigned[i] || row[j] > row[best])) best = j;
    }
    if (best == assigned[i] || row[best] < kNearRunnerUp * row[assigned[i]]) continue;
    pairs.insert({i, best});
    pairs.insert({owner[best], assigned[i]});
  }
  return pairs;
}

std::set<Pair> all_pairs(std::uint32_t size) {
  std::set<Pair> pairs;
  for (std::uint32_t i = 0; i < size; ++i) {
    for (std::uint32_t j = 0; j < size; ++j) pairs.insert({i, j});
  }
  return pairs;
}

}  // namespace

LayerMatcher::LayerMatcher(const LayerTask& task, std::span<const float> router, ExpertSource& experts)
    : task_(task), router_(router), experts_(experts) {}

std::vector<std::vector<float>> LayerMatcher::signatures_of(ExpertSource& experts) const {
  std::vector<std::vector<float>> result;
  std::vector<float> sketches;
  for (std::uint32_t e = 0; e < task_.num_experts; ++e) {
    const ExpertMatrices& expert = experts.load(e);
    sketch_neurons(expert, sketches, task_.threads);
    result.push_back(task_.neurons ? gram_of_neurons(sketches, expert.num_neurons, task_.threads)
                                   : sketch_expert(sketches, expert.num_neurons, kSignature / kDepth));
  }
  return result;
}

bool LayerMatcher::compares_all(const ExpertMatrices& expert) const {
  const double pairs = static_cast<double>(task_.num_experts) * task_.num_experts;
  const double size = 3.0 * static_cast<double>(expert.num_neurons) * static_cast<double>(expert.hidden);
  const double products = pairs * size * (task_.neurons ? static_cast<double>(expert.num_neurons) : 1.0);
  return products <= static_cast<double>(task_.exact_pairs);
}

LayerMatch LayerMatcher::match(std::span<const float> router, ExpertSource& experts) {
  const std::uint32_t size = task_.num_experts;
  const std::vector<double> rows_a = centred(router_, size);
  const std::vector<double> rows_b = centred(router, size);
  check_finite(dot(rows_a.data(), rows_a.data(), rows_a.size()), "the router rows of the layer it is matched to");
  check_finite(dot(rows_b.data(), rows_b.data(), rows_b.size()), "its router rows");
  const std::vector<double> of_routers = similarity_of_rows(rows_a, rows_b, size);
  PairOfLayers pair(task_, experts_, experts);
  LayerMatch result;
  const bool reads_weights = task_.match != Match::kRouter || task_.neurons;
  if (reads_weights) pair.measure_norms();
  if (task_.match == Match::kRouter) {
    result.experts = assign_in_groups(to_floats(of_routers), size, task_.num_groups);
  } else {
    const std::vector<double> more = task_.match == Match::kBoth ? of_routers : std::vector<double>{};
    if (compares_all(experts_.load(0))) {
      result.experts = pair.assign_exactly(all_pairs(size), more);
    } else {
      if (signatures_.empty()) signatures_ = signatures_of(experts_);
      std::vector<double> likely = similarity_of_signatures(signatures_, signatures_of(experts), task_.threads);
      for (std::size_t i = 0; i < more.size(); ++i) likely[i] += more[i];
      const std::vector<float> similarity = to_floats(likely);
      const std::vector<std::uint32_t> assigned = assign_in_groups(similarity, size, task_.num_groups);
      result.experts = pair.assign_exactly(likely_pairs(similarity, assigned), more);
    }
  }
  for (std::uint32_t e = 0; e < size; ++e) {
    result.before.router += of_routers[std::size_t{e} * size + e] / size;
    result.after.router += of_routers[std::size_t{e} * size + result.experts[e]] / size;
  }
  if (reads_weights) pair.finish(result);
  return result;
}

std::uint64_t layer_match_bytes(const LayerTask& task, std::uint64_t num_neurons) {
  const std::uint64_t signatures = 4 * std::uint64_t{task.num_experts} * kSignature * sizeof(float);
  const std::uint64_t orders = 4 * std::uint64_t{task.num_experts} * num_neurons * sizeof(std::uint32_t);
  const std::uint64_t similarities = 4 * std::uint64_t{task.num_experts} * task.num_experts * sizeof(double);
  const std::uint64_t routers = 4 * std::uint64_t{task.num_experts} * task.hidden * sizeof(double);
  return signatures + orders + similarities + routers + neuron_match_bytes(num_neurons);
}

}  // namespace moeweld::align
