#pragma once
/// What ties.cpp (measure, then apply) and ties_speculation.cpp (apply under a guess) share.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "merge/kernels/elect_signs.h"
#include "merge/magnitude_selection.h"
#include "moeweld/merge/method.h"

namespace moeweld::merge::ties {

enum SharedParameter : std::size_t { kNormalize, kLambda, kRescale };
enum ModelParameter : std::size_t { kWeight, kDensity };
enum Phase : int { kSelect = 0, kRescaleSums = 1 };

inline std::vector<int> task_vectors(const Task& task) {
  std::vector<int> result;
  for (int i = 0; i < static_cast<int>(task.inputs.size()); ++i) {
    if (i != task.base_index) result.push_back(i);
  }
  return result;
}

inline std::vector<double> model_parameters(const Task& task, ModelParameter parameter) {
  std::vector<double> result;
  for (const int input : task_vectors(task)) result.push_back(task.inputs[static_cast<std::size_t>(input)].parameters[parameter]);
  return result;
}

/// Decisions as they are before the first phase: which inputs have to be searched follows from the densities alone.
inline Decisions started(const Task& task, const Decisions& decisions) {
  if (!decisions.integers.empty()) return decisions;
  Decisions result;
  MagnitudeSelection(task, task_vectors(task)).start(model_parameters(task, kDensity), result);
  return result;
}

/// The parameters of an election, kept where the kernel can point to them.
template <typename T>
struct Election {
  explicit Election(const Task& task, const Decisions& decisions) : inputs(task_vectors(task)), terms(inputs.size()) {
    const std::vector<double> values = model_parameters(task, kWeight);
    weights.assign(values.begin(), values.end());
    scales.assign(decisions.reals.begin(), decisions.reals.end());
    kernel.weights = weights;
    kernel.scales = scales;
    kernel.terms = terms;
    kernel.normalize = task.parameters[kNormalize] != 0.0;
    kernel.lambda = static_cast<T>(task.parameters[kLambda]);
  }
  Election(const Election&) = delete;
  Election& operator=(const Election&) = delete;

  void point_to(const Task& task, const auto& pointers) {
    for (std::size_t i = 0; i < inputs.size(); ++i) terms[i] = pointers[static_cast<std::size_t>(inputs[i])];
    kernel.base = pointers[static_cast<std::size_t>(task.base_index)];
  }

  std::vector<int> inputs;
  std::vector<const void*> terms;
  std::vector<T> weights;
  std::vector<T> scales;
  SignElection<T> kernel;
};

/// Calls work(run, output) for runs within which the high half of the index, and so the rules, do not change.
template <class Work>
void for_runs_of_rules(const Task& task, const Elements& elements, std::byte* output, Work&& work) {
  constexpr std::uint64_t kPeriod = std::uint64_t{1} << 32;
  for (std::uint64_t done = 0; done < elements.num_elements;) {
    const std::uint64_t first = elements.first_element + done;
    const std::uint64_t count = std::min<std::uint64_t>(elements.num_elements - done, kPeriod - first % kPeriod);
    std::vector<const std::byte*> pointers;
    for (std::size_t i = 0; i < elements.inputs.size(); ++i)
      pointers.push_back(elements.inputs[i] + done * size_bytes(task.inputs[i].dtype));
    work(Elements{.first_element = first, .num_elements = count, .inputs = pointers}, output + done * size_bytes(task.output_dtype));
    done += count;
  }
}

extern const Speculation kSpeculation;

}  // namespace moeweld::merge::ties
