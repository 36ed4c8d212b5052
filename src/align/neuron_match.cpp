#include "moeweld/align/neuron_match.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "align/neurons.h"
#include "align/products.h"
#include "moeweld/align/assignment.h"

namespace moeweld::align {

namespace {

/// A sketch's cosine is off by about 1/16: this is far from chance, and a neuron's own copy after fine-tuning is far above it.
constexpr double kPartnerCosine = 0.4;
constexpr std::size_t kLargestRounds = 4;

std::vector<std::uint32_t> identity(std::uint64_t size) {
  std::vector<std::uint32_t> order(size);
  std::iota(order.begin(), order.end(), 0U);
  return order;
}

double sum_of(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

class Matcher {
 public:
  Matcher(const ExpertMatrices& a, const ExpertMatrices& b, int threads) : a_(a), b_(b), size_(a.num_neurons), threads_(threads) {}

  NeuronMatch on_full_product() {
    products_.assign(size_ * size_, 0.0F);
    for (std::uint64_t run = 0; run < num_column_runs(a_); ++run) {
      decode_column_run(a_, run, rows_a_, threads_);
      decode_column_run(b_, run, rows_b_, threads_);
      add_products(rows_a_.data(), size_, rows_b_.data(), size_, products_.data(), size_, threads_);
    }
    return result(assign(products_, size_));
  }

  NeuronMatch on_sketches() {
    sketch_neurons(a_, rows_a_, threads_);
    sketch_neurons(b_, rows_b_, threads_);
    products_.assign(size_ * size_, 0.0F);
    add_products(rows_a_.data(), size_, rows_b_.data(), size_, products_.data(), size_, threads_);
    const std::vector<double> norms_a = paired_products(a_, a_, identity(size_), threads_);
    const std::vector<double> norms_b = paired_products(b_, b_, identity(size_), threads_);
    std::vector<std::uint32_t> order = assign(products_, size_);
    for (std::size_t round = 0; round < kLargestRounds; ++round) {
      const std::vector<double> exact = paired_products(a_, b_, order, threads_);
      std::uint64_t num_lonely = 0;
      for (std::uint64_t n = 0; n < size_; ++n) {
        const double square = norms_a[n] * norms_b[order[n]];
        if (square > 0 && exact[n] < kPartnerCosine * std::sqrt(square)) ++num_lonely;
      }
      if (num_lonely * 100 > size_) return on_full_product();
      const std::vector<std::uint32_t> others = runners_up(order);
      const std::vector<double> exact_others = paired_products(a_, b_, others, threads_);
      for (std::uint64_t n = 0; n < size_; ++n) {
        products_[n * size_ + order[n]] = static_cast<float>(exact[n]);
        products_[n * size_ + others[n]] = static_cast<float>(exact_others[n]);
      }
      std::vector<std::uint32_t> next = assign(products_, size_);
      if (next == order) return {.order = std::move(order), .product = sum_of(exact)};
      order = std::move(next);
    }
    return on_full_product();
  }

 private:
  NeuronMatch result(std::vector<std::uint32_t> order) const {
    const double product = sum_of(paired_products(a_, b_, order, threads_));
    return {.order = std::move(order), .product = product};
  }

  /// The best neuron of b for each of a's, but the one it has.
  std::vector<std::uint32_t> runners_up(const std::vector<std::uint32_t>& order) const {
    std::vector<std::uint32_t> result(size_);
    for (std::uint64_t n = 0; n < size_; ++n) {
      std::uint32_t best = order[n] == 0 && size_ > 1 ? 1 : 0;
      for (std::uint32_t other = best + 1; other < size_; ++other) {
        if (other != order[n] && products_[n * size_ + other] > products_[n * size_ + best]) best = other;
      }
      result[n] = best;
    }
    return result;
  }

  const ExpertMatrices& a_;
  const ExpertMatrices& b_;
  const std::uint64_t size_;
  const int threads_;
  std::vector<float> rows_a_;
  std::vector<float> rows_b_;
  std::vector<float> products_;
};

}  // namespace

NeuronMatch match_neurons(const ExpertMatrices& a, const ExpertMatrices& b, int threads, std::uint64_t sketched_products) {
  Matcher matcher(a, b, threads);
  if (a.num_neurons * a.num_neurons * 3 * a.hidden < sketched_products) return matcher.on_full_product();
  return matcher.on_sketches();
}

NeuronMatch keep_neurons(const ExpertMatrices& a, const ExpertMatrices& b, int threads) {
  return {.order = {}, .product = sum_of(paired_products(a, b, identity(a.num_neurons), threads))};
}

double squared_norm(const ExpertMatrices& expert, int threads) { return keep_neurons(expert, expert, threads).product; }

std::uint64_t neuron_match_bytes(std::uint64_t num_neurons) {
  // Products, rows of both, and a few numbers per neuron.
  return num_neurons * (num_neurons * sizeof(float) + 2 * kDepth * sizeof(float) + 256);
}

}  // namespace moeweld::align
