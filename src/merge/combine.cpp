#include "merge/combine.h"

#include <array>

#include "merge/kernels/linear_combination.h"
#include "merge/tiles.h"

namespace moeweld::merge {

namespace {

template <typename T>
LinearCombination<T> start(const Combination& combination, const std::vector<T>& weights) {
  LinearCombination<T> kernel;
  kernel.weights = weights;
  kernel.divisor = static_cast<T>(combination.divisor);
  kernel.lambda = static_cast<T>(combination.lambda);
  return kernel;
}

template <typename T, typename Pointers>
std::vector<const void*> pick_terms(const Combination& combination, const Pointers& inputs) {
  std::vector<const void*> result;
  for (const int term : combination.terms) result.push_back(inputs[static_cast<std::size_t>(term)]);
  return result;
}

void combine_bf16(const Task& task, const Combination& combination, const Elements& elements, std::byte* output) {
  const std::vector<float> weights(combination.weights.begin(), combination.weights.end());
  for_padded(task, elements, output, sizeof(std::uint16_t), [&](const Elements& part, std::size_t, std::byte* target) {
    LinearCombination<float> kernel = start<float>(combination, weights);
    const std::vector<const void*> terms = pick_terms<float>(combination, part.inputs);
    kernel.terms = terms;
    if (combination.base >= 0) kernel.base = part.inputs[static_cast<std::size_t>(combination.base)];
    combine_linearly_bf16(kernel, part.num_elements, reinterpret_cast<std::uint16_t*>(target));
  });
}

template <typename T>
void combine_any(const Task& task, const Combination& combination, const Elements& elements, std::byte* output) {
  const std::size_t element_size = size_bytes(task.output_dtype);
  const std::vector<T> weights(combination.weights.begin(), combination.weights.end());
  for_padded(task, elements, output, element_size, [&](const Elements& part, std::size_t, std::byte* target) {
    std::array<T, kTileElements> result;
    for_decoded_tiles<T>(task, part, [&](std::span<const void* const> tiles, std::size_t offset, std::size_t num) {
      LinearCombination<T> kernel = start<T>(combination, weights);
      const std::vector<const void*> terms = pick_terms<T>(combination, tiles);
      kernel.terms = terms;
      if (combination.base >= 0) kernel.base = tiles[static_cast<std::size_t>(combination.base)];
      combine_linearly(kernel, num, result.data());
      encode(task.output_dtype, result.data(), num, NanPolicy::kCanonical, target + offset * element_size);
    });
  });
}

}  // namespace

void apply_combination(const Task& task, const Combination& combination, const Elements& elements, std::byte* output) {
  if (task.output_dtype == DType::kBF16 && all_inputs_are(task, DType::kBF16)) return combine_bf16(task, combination, elements, output);
  if (computes_in_float64(task.output_dtype)) return combine_any<double>(task, combination, elements, output);
  combine_any<float>(task, combination, elements, output);
}

}  // namespace moeweld::merge
