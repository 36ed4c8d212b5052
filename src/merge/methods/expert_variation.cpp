#include "moeweld/merge/expert_variation.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>

#include "merge/methods/rows.h"
#include "merge/tiles.h"
#include "moeweld/base/random.h"

namespace moeweld::merge {

namespace {

/// Positions in Task::parameters.
enum Shared : std::size_t { kAxis, kRatio, kNeuronSet };
/// Positions in the input's parameters, group after group.
enum PerGroup : std::size_t { kNoise, kScale, kNeurons, kNumPerGroup };

/// Noise and re-drawn values of one tensor come from different streams.
constexpr std::uint64_t kRedrawStream = 0x9E3779B97F4A7C15;

bool redraws(const Task& task) { return task.parameters[kRatio] > 0; }
bool neurons_are_rows(const Task& task) { return task.parameters[kAxis] == static_cast<double>(NeuronAxis::kRows); }
std::uint64_t row_length(const Task& task) { return std::max<std::uint64_t>(1, task.shape.back()); }
std::uint64_t num_neurons(const Task& task) { return neurons_are_rows(task) ? task.shape.front() : task.shape.back(); }

std::uint64_t neuron_of(const Task& task, std::uint64_t element) {
  return neurons_are_rows(task) ? element / row_length(task) : element % row_length(task);
}

/// The choice costs a sort of all neurons, and a matrix is measured and applied in many parts: each thread remembers the last one.
const std::vector<std::uint8_t>& redrawn_of(const Task& task) {
  using Key = std::tuple<std::uint64_t, double, std::uint64_t, double>;
  thread_local Key known{0, -1.0, 0, -1.0};
  thread_local std::vector<std::uint8_t> chosen;
  const Key wanted{task.seed, task.parameters[kNeuronSet], num_neurons(task), task.parameters[kRatio]};
  if (known != wanted) {
    chosen =
        redrawn_neurons(task.seed, static_cast<std::uint64_t>(task.parameters[kNeuronSet]), num_neurons(task), task.parameters[kRatio]);
    known = wanted;
  }
  return chosen;
}

std::optional<PhaseShape> next_phase(const Task& task, const Decisions& decisions) {
  if (!redraws(task) || !decisions.reals.empty()) return std::nullopt;
  return PhaseShape{.phase = 0, .num_counts = 0, .has_sums = true, .is_only = true};
}

/// Number of values, their mean and the sum of squared differences from it.
struct Moments {
  double count = 0;
  double mean = 0;
  double squares = 0;

  /// Chan, Golub and LeVeque 1979: moments of two parts to moments of both.
  void add(const Moments& other) {
    if (other.count == 0) return;
    const double both = count + other.count;
    const double difference = other.mean - mean;
    squares += other.squares + difference * difference * count * other.count / both;
    mean += difference * other.count / both;
    count = both;
  }
};

Moments moments_of(std::span<const double> values) {
  Moments result{.count = static_cast<double>(values.size())};
  if (values.empty()) return result;
  for (const double value : values) result.mean += value;
  result.mean /= result.count;
  for (const double value : values) result.squares += (value - result.mean) * (value - result.mean);
  return result;
}

/// Moments of the elements of a block that are replaced, tile by tile.
void measure(const Task& task, const Decisions&, const PhaseShape&, const Elements& block, std::span<std::uint64_t>,
             std::vector<double>& sums) {
  const std::vector<std::uint8_t>& redrawn = redrawn_of(task);
  Moments total;
  std::vector<double> values;
  for_padded(task, block, nullptr, 0, [&](const Elements& part, std::size_t num_valid, std::byte*) {
    for_decoded_tiles<double>(task, part, [&](std::span<const void* const> tiles, std::size_t offset, std::size_t num) {
      const auto* tile = static_cast<const double*>(tiles[0]);
      values.clear();
      for (std::size_t i = 0; i < num && offset + i < num_valid; ++i) {
        if (redrawn[neuron_of(task, part.first_element + offset + i)] != 0) values.push_back(tile[i]);
      }
      total.add(moments_of(values));
    });
  });
  sums = {total.count, total.mean, total.squares};
}

void fold(const Task&, const PhaseShape&, std::uint64_t, std::span<const double> sums, std::vector<double>& total) {
  Moments all = total.empty() ? Moments{} : Moments{total[0], total[1], total[2]};
  all.add({sums[0], sums[1], sums[2]});
  total = {all.count, all.mean, all.squares};
}

/// reals: mean and standard deviation.
void decide(const Task&, const PhaseShape&, const PhaseResult& result, Decisions& decisions) {
  decisions.reals = {0, 0};
  if (result.sums.size() == 3 && result.sums[0] > 0) decisions.reals = {result.sums[1], std::sqrt(result.sums[2] / result.sums[0])};
}

/// The groups of a task, by the first neuron after each.
class Groups {
 public:
  explicit Groups(const Task& task) : parameters_(task.inputs[0].parameters) {
    std::uint64_t end = 0;
    for (std::size_t i = 0; i + kNumPerGroup <= parameters_.size(); i += kNumPerGroup) {
      end += static_cast<std::uint64_t>(parameters_[i + kNeurons]);
      ends_.push_back(end);
    }
  }
  /// Noise and factor of a neuron.
  std::pair<double, double> at(std::uint64_t neuron) const {
    auto group = static_cast<std::size_t>(std::upper_bound(ends_.begin(), ends_.end(), neuron) - ends_.begin());
    group = std::min(group, ends_.size() - 1);
    return {parameters_[group * kNumPerGroup + kNoise], parameters_[group * kNumPerGroup + kScale]};
  }

 private:
  const std::vector<double>& parameters_;
  std::vector<std::uint64_t> ends_;
};

template <typename T>
void vary(const Task& task, const Decisions& decisions, const Elements& elements, std::byte* output) {
  const std::size_t element_size = size_bytes(task.output_dtype);
  const std::vector<std::uint8_t>* redrawn = redraws(task) ? &redrawn_of(task) : nullptr;
  const Groups groups(task);
  const RandomStream noise_stream{task.seed, task.tensor_key};
  const RandomStream redraw_stream{task.seed, task.tensor_key ^ kRedrawStream};
  const auto result = hwy::AllocateAligned<T>(kTileElements);
  for_padded(task, elements, output, element_size, [&](const Elements& part, std::size_t num_valid, std::byte* target) {
    for_decoded_tiles<T>(task, part, [&](std::span<const void* const> tiles, std::size_t offset, std::size_t num) {
      const auto* tile = static_cast<const T*>(tiles[0]);
      for (std::size_t i = 0; i < num; ++i) {
        const std::uint64_t element = part.first_element + offset + i;
        T value = tile[i];
        if (offset + i < num_valid) {
          const std::uint64_t neuron = neuron_of(task, element);
          if (redrawn != nullptr && (*redrawn)[neuron] != 0) {
            value = static_cast<T>(decisions.reals[0] + decisions.reals[1] * normal(redraw_stream, element));
          }
          const auto [noise_scale, scale] = groups.at(neuron);
          if (noise_scale != 0) value += static_cast<T>(noise_scale * normal(noise_stream, element));
          value *= static_cast<T>(scale);
        }
        result[i] = value;
      }
      encode(task.output_dtype, result.get(), num, NanPolicy::kCanonical, target + offset * element_size);
    });
  });
}

void apply(const Task& task, const Decisions& decisions, const Elements& elements, std::byte* output) {
  if (computes_in_float64(task.output_dtype)) {
    vary<double>(task, decisions, elements, output);
  } else {
    vary<float>(task, decisions, elements, output);
  }
}

}  // namespace

MethodRow expert_variation_row() {
  MethodRow row;
  row.name = "expert_variation";
  row.title = "Variation of an expert: neurons drawn anew, noise, a factor";
  row.reference = "Drop-Upcycling, https://arxiv.org/abs/2502.19261";
  row.inputs = {.min_inputs = 1, .max_inputs = 1, .base = Base::kIgnored};
  row.internal = true;
  row.shared_parameters = {{.name = "neuron_axis", .meaning = "0: neurons are rows, 1: columns"},
                           {.name = "redrawn_ratio", .meaning = "share of the neurons that are drawn anew"},
                           {.name = "neuron_set", .meaning = "which neurons: equal for gate, up and down of an expert"}};
  row.model_parameters = {{.name = "noise_scale", .meaning = "standard deviation of the noise"},
                          {.name = "scale", .meaning = "factor, after the noise"},
                          {.name = "num_neurons", .meaning = "of this group; further groups follow"}};
  row.next_phase = next_phase;
  row.measure = measure;
  row.fold = fold;
  row.decide = decide;
  row.apply = apply;
  return row;
}

const MethodRow& expert_variation() {
  static const MethodRow& row = *find_method("expert_variation");
  return row;
}

void set_variation(const ExpertVariation& variation, Task& task) {
  task.parameters = {static_cast<double>(variation.axis), variation.redrawn_ratio, static_cast<double>(variation.neuron_set)};
  std::vector<double>& parameters = task.inputs.at(0).parameters;
  parameters.clear();
  for (const NeuronGroup& group : variation.groups) {
    parameters.insert(parameters.end(), {group.noise_scale, group.scale, static_cast<double>(group.num_neurons)});
  }
}

std::vector<std::uint8_t> redrawn_neurons(std::uint64_t seed, std::uint64_t neuron_set, std::uint64_t num_neurons, double ratio) {
  std::vector<std::uint8_t> result(num_neurons, 0);
  const auto count = static_cast<std::ptrdiff_t>(std::llround(std::clamp(ratio, 0.0, 1.0) * static_cast<double>(num_neurons)));
  const RandomStream stream{seed, stream_id("re-drawn neurons/" + std::to_string(neuron_set))};
  std::vector<std::pair<float, std::uint64_t>> keys(num_neurons);
  for (std::uint64_t i = 0; i < num_neurons; ++i) keys[i] = {uniform(stream, i), i};
  std::nth_element(keys.begin(), keys.begin() + std::min(count, static_cast<std::ptrdiff_t>(num_neurons)), keys.end());
  for (std::ptrdiff_t i = 0; i < count; ++i) result[keys[static_cast<std::size_t>(i)].second] = 1;
  return result;
}

}  // namespace moeweld::merge
