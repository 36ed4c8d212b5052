/// Time and memory of matching one layer of experts with a shuffled fine-tune of it. Experts are made when they are loaded, so memory is
/// what matching takes, and the time of making them is left out.

#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <random>
#include <vector>

#include "moeweld/align/layer_match.h"

namespace {

using namespace moeweld;
using Clock = std::chrono::steady_clock;
using Order = std::vector<std::uint32_t>;

/// Sums of two uniform numbers, as bfloat16.
class Numbers {
 public:
  explicit Numbers(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15U + 1) {}
  float next() {
    state_ = state_ * 6364136223846793005U + 1442695040888963407U;
    return static_cast<float>(static_cast<std::int32_t>(state_ >> 32)) * 2e-11F +
           static_cast<float>(static_cast<std::int32_t>(state_ >> 16)) * 1e-11F;
  }

 private:
  std::uint64_t state_;
};

class MadeExperts : public align::ExpertSource {
 public:
  MadeExperts(std::uint64_t num_neurons, std::uint64_t hidden, float noise) : num_neurons_(num_neurons), hidden_(hidden), noise_(noise) {
    for (std::vector<std::uint16_t>* matrix : {&gate_, &up_, &down_}) matrix->resize(num_neurons * hidden);
  }

  Order experts;               ///< empty: in order
  std::vector<Order> neurons;  ///< by own expert
  double seconds = 0;

  const align::ExpertMatrices& load(std::uint32_t expert) override {
    if (loaded_ == static_cast<std::int64_t>(expert)) return matrices_;
    const auto start = Clock::now();
    const std::uint64_t origin = experts.empty() ? expert : experts[expert];
#pragma omp parallel for
    for (std::uint64_t n = 0; n < num_neurons_; ++n) {
      const std::uint64_t neuron = neurons.empty() ? n : neurons[expert][n];
      Numbers numbers(origin << 32 | neuron);
      Numbers noise(~(origin << 32 | neuron));
      for (std::uint64_t k = 0; k < hidden_; ++k) {
        gate_[n * hidden_ + k] = bf16(numbers.next() + noise_ * noise.next());
        up_[n * hidden_ + k] = bf16(numbers.next() + noise_ * noise.next());
        down_[k * num_neurons_ + n] = bf16(numbers.next() + noise_ * noise.next());
      }
    }
    const auto stored = [](const std::vector<std::uint16_t>& values) {
      return align::StoredMatrix{DType::kBF16, reinterpret_cast<const std::byte*>(values.data())};
    };
    matrices_ = {num_neurons_, hidden_, stored(gate_), stored(up_), stored(down_)};
    loaded_ = expert;
    seconds += std::chrono::duration<double>(Clock::now() - start).count();
    return matrices_;
  }

 private:
  static std::uint16_t bf16(float value) { return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16); }

  std::uint64_t num_neurons_;
  std::uint64_t hidden_;
  float noise_;
  std::int64_t loaded_ = -1;
  std::vector<std::uint16_t> gate_, up_, down_;
  align::ExpertMatrices matrices_;
};

}  // namespace

int main(int argc, char** argv) {
  std::uint32_t num_experts = 64;
  std::uint64_t num_neurons = 1408;
  std::uint64_t hidden = 2048;
  int threads = 2;
  float noise = 0.3F;
  bool related = true;
  CLI::App app("Matches one layer of experts with a shuffled fine-tune of it.");
  app.add_option("--experts", num_experts);
  app.add_option("--neurons", num_neurons);
  app.add_option("--hidden", hidden);
  app.add_option("--threads", threads);
  app.add_option("--noise", noise, "Of the fine-tune, relative to the weights; --unrelated leaves only it");
  app.add_flag("!--unrelated", related);
  CLI11_PARSE(app, argc, argv);

  std::mt19937 random(1);
  const auto shuffled = [&](std::size_t size) {
    Order order(size);
    std::iota(order.begin(), order.end(), 0U);
    std::shuffle(order.begin(), order.end(), random);
    return order;
  };
  MadeExperts a(num_neurons, hidden, 0.0F);
  MadeExperts b(num_neurons, hidden, noise);
  b.experts = shuffled(num_experts);
  if (!related) {
    for (std::uint32_t& expert : b.experts) expert += num_experts;
  }
  for (std::uint32_t e = 0; e < num_experts; ++e) b.neurons.push_back(shuffled(num_neurons));
  std::normal_distribution<float> normal;
  std::vector<float> router(num_experts * hidden);
  for (float& value : router) value = normal(random);
  // The weights alone must do: the other model's router says nothing.
  std::vector<float> other_router(num_experts * hidden);
  for (float& value : other_router) value = normal(random);

  const align::LayerTask task{.num_experts = num_experts, .hidden = hidden, .match = align::Match::kWeights, .threads = threads};
  const auto start = Clock::now();
  const align::LayerMatch match = align::LayerMatcher(task, router, a).match(other_router, b);
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count() - a.seconds - b.seconds;
  std::uint64_t wrong = 0;
  for (std::uint32_t e = 0; related && e < num_experts; ++e) {
    const std::uint32_t own = match.experts[e];
    if (b.experts[own] != e) {
      wrong += num_neurons;
      continue;
    }
    for (std::uint64_t n = 0; n < num_neurons; ++n) wrong += b.neurons[own][match.neurons[e][n]] != n ? 1 : 0;
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::printf(
      "%u experts of %llu x %llu: %.2f s on %d threads (making them: %.1f s more), %llu of %llu neurons wrong, weights %.4f -> %.4f, peak "
      "%.0f MiB\n",
      num_experts, static_cast<unsigned long long>(hidden), static_cast<unsigned long long>(num_neurons), seconds, threads,
      a.seconds + b.seconds, static_cast<unsigned long long>(wrong), static_cast<unsigned long long>(num_experts * num_neurons),
      match.before.weights, match.after.weights, static_cast<double>(usage.ru_maxrss) / 1024);
  return wrong == 0 ? 0 : 1;
}
