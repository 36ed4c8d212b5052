#include "merge/combine.h"

#include <array>

#include "merge/kernels/linear_combination.h"
#include "merge/tiles.h"

namespace moeweld::merge {

namespace {

/// The kernel's view of a combination over one set of pointers.
template <typename Pointers>
void combine(const Combination& combination, const Pointers& inputs, const auto& run) {
  std::vector<const void*> terms;
  for (const int term : combination.terms) terms.push_back(inputs[static_cast<std::size_t>(term)]);
  LinearCombination kernel;
  kernel.weights = combination.weights;
  kernel.terms = terms;
  kernel.divisor = combination.divisor;
  kernel.lambda = combination.lambda;
  if (combination.base >= 0) kernel.base = inputs[static_cast<std::size_t>(combination.base)];
  run(kernel);
}

void combine_bf16(const Task& task, const Combination& combination, const Elements& elements, std::byte* output) {
  for_padded(task, elements, output, sizeof(std::uint16_t), [&](const Elements& part, std::size_t, std::byte* target) {
    combine(combination, part.inputs, [&](const LinearCombination& kernel) {
      combine_linearly_bf16(kernel, part.num_elements, reinterpret_cast<std::uint16_t*>(target));
    });
  });
}

void combine_any(const Task& task, const Combination& combination, const Elements& elements, std::byte* output) {
  const std::size_t element_size = size_bytes(task.output_dtype);
  for_padded(task, elements, output, element_size, [&](const Elements& part, std::size_t, std::byte* target) {
    std::array<double, kTileElements> result;
    std::array<float, kTileElements> narrowed;
    for_decoded_tiles<double>(task, part, [&](std::span<const void* const> tiles, std::size_t offset, std::size_t num) {
      combine(combination, tiles, [&](const LinearCombination& kernel) { combine_linearly(kernel, num, result.data()); });
      std::byte* place = target + offset * element_size;
      if (computes_in_float64(task.output_dtype)) {
        encode(task.output_dtype, result.data(), num, NanPolicy::kCanonical, place);
      } else {
        decode(DType::kF64, result.data(), num, narrowed.data());
        encode(task.output_dtype, narrowed.data(), num, NanPolicy::kCanonical, place);
      }
    });
  });
}

}  // namespace

void apply_combination(const Task& task, const Combination& combination, const Elements& elements, std::byte* output) {
  if (task.output_dtype == DType::kBF16 && all_inputs_are(task, DType::kBF16)) return combine_bf16(task, combination, elements, output);
  combine_any(task, combination, elements, output);
}

}  // namespace moeweld::merge
