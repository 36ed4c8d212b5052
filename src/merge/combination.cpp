#include <cmath>
#include <type_traits>

#include "merge/kernels/linear_combination.h"
#include "merge/methods.h"
#include "merge/tiles.h"

namespace moeweld::merge {
namespace {

template <typename T>
LinearCombination<T> with_coefficients(const Combination& combination, const std::vector<T>& weights, std::span<const void* const> terms,
                                       const void* base) {
  return {weights, terms, base, static_cast<T>(combination.divisor), static_cast<T>(combination.lambda)};
}

template <typename T>
void combine_decoded(const Task& task, const Combination& combination, const std::vector<T>& weights, const Elements& elements, std::byte* output) {
  alignas(64) T result[kTileElements];
  const std::size_t output_bytes = size_bytes(task.output_dtype);
  std::vector<const void*> terms(weights.size());
  for_decoded_tiles<T>(task, elements, [&](std::span<const void* const> tiles, std::size_t offset, std::size_t num) {
    for (std::size_t i = 0; i < terms.size(); ++i) terms[i] = tiles[combination.inputs[i]];
    const void* base = combination.around_base ? tiles[static_cast<std::size_t>(task.base_index)] : nullptr;
    combine_linearly(with_coefficients<T>(combination, weights, terms, base), num, result);
    encode(task.output_dtype, result, num, NanPolicy::kCanonical, output + offset * output_bytes);
  });
}

template <typename T>
void combine(const Task& task, const Combination& combination, const Elements& elements, std::byte* output) {
  const std::vector<T> weights(combination.coefficients.begin(), combination.coefficients.end());
  const bool all_bf16 = task.output_dtype == DType::kBF16 && all_inputs_are(task, DType::kBF16);
  for_padded(task, elements, output, size_bytes(task.output_dtype), [&](const Elements& padded, std::size_t, std::byte* target) {
    if constexpr (std::is_same_v<T, float>) {
      if (all_bf16) {
        std::vector<const void*> terms;
        for (const std::size_t input : combination.inputs) terms.push_back(padded.inputs[input]);
        const void* base = combination.around_base ? padded.inputs[static_cast<std::size_t>(task.base_index)] : nullptr;
        combine_linearly_bf16(with_coefficients<T>(combination, weights, terms, base), padded.num_elements, reinterpret_cast<std::uint16_t*>(target));
        return;
      }
    }
    combine_decoded<T>(task, combination, weights, padded, target);
  });
}

template <typename T>
void convert(const Task& task, std::size_t input, const Elements& elements, std::byte* output) {
  alignas(64) T values[kTileElements];
  const DType from = task.inputs[input].dtype;
  const std::size_t from_bytes = size_bytes(from);
  const std::size_t to_bytes = size_bytes(task.output_dtype);
  for_padded(task, elements, output, to_bytes, [&](const Elements& padded, std::size_t, std::byte* target) {
    for (std::size_t offset = 0; offset < padded.num_elements; offset += kTileElements) {
      const std::size_t num = std::min(kTileElements, padded.num_elements - offset);
      decode(from, padded.inputs[input] + offset * from_bytes, num, values);
      encode(task.output_dtype, values, num, NanPolicy::kPayload, target + offset * to_bytes);
    }
  });
}

}  // namespace

void apply_combination(const Task& task, const Combination& combination, const Elements& elements, std::byte* output) {
  if (computes_in_float64(task.output_dtype)) return combine<double>(task, combination, elements, output);
  combine<float>(task, combination, elements, output);
}

void apply_conversion(const Task& task, std::size_t input, const Elements& elements, std::byte* output) {
  if (task.inputs[input].dtype == task.output_dtype) {
    std::memcpy(output, elements.inputs[input], elements.num_elements * size_bytes(task.output_dtype));
    return;
  }
  if (computes_in_float64(task.output_dtype)) return convert<double>(task, input, elements, output);
  convert<float>(task, input, elements, output);
}

std::vector<std::size_t> task_vectors(const Task& task) {
  std::vector<std::size_t> result;
  for (std::size_t i = 0; i < task.inputs.size(); ++i) {
    if (static_cast<int>(i) != task.base_index) result.push_back(i);
  }
  return result;
}

std::vector<std::string> finite_parameter_problems(const MethodRow& method, const Task& task) {
  std::vector<std::string> problems;
  const auto check = [&](const ParameterRow& row, double value, const std::string& whose) {
    if (std::isfinite(value) || (row.optional && std::isnan(value))) return;
    problems.push_back("parameter '" + std::string(row.name) + "'" + whose + " of method '" + std::string(method.name) + "' must be a finite number.");
  };
  for (std::size_t i = 0; i < method.shared_parameters.size(); ++i) check(method.shared_parameters[i], task.parameters.at(i), "");
  for (std::size_t input = 0; input < task.inputs.size(); ++input) {
    const bool is_base = static_cast<int>(input) == task.base_index;
    for (std::size_t i = 0; i < method.model_parameters.size(); ++i) {
      if (is_base && !method.model_parameters[i].base_too) continue;
      check(method.model_parameters[i], task.inputs[input].parameters.at(i), " of model " + std::to_string(input + 1));
    }
  }
  return problems;
}

}  // namespace moeweld::merge
