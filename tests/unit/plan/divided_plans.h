#pragma once
/// Plans of many tensors without files, for tests of how work is divided.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "moeweld/merge/method.h"
#include "plan/output_layout.h"

namespace moeweld::plan {

constexpr std::uint64_t kMiB = 1024 * 1024;

inline OutputTensor merged(const std::string& name, const std::string& method, std::uint64_t num_elements, DType dtype = DType::kBF16) {
  OutputTensor tensor;
  tensor.name = name;
  tensor.dtype = dtype;
  tensor.shape = {num_elements};
  const merge::MethodRow* row = merge::find_method(method);
  Operation operation;
  operation.name = name;
  operation.method = static_cast<std::uint32_t>(row - merge::method_table().data());
  operation.task.shape = tensor.shape;
  operation.task.output_dtype = dtype;
  operation.task.base_index = 0;
  for (const auto& parameter : row->shared_parameters) operation.task.parameters.push_back(parameter.default_value.value_or(0.5));
  for (int input = 0; input < 2; ++input) {
    merge::TaskInput task_input{.dtype = dtype, .parameters = {}};
    for (const auto& parameter : row->model_parameters)
      task_input.parameters.push_back(parameter.name == "density" ? 0.5 : parameter.default_value.value_or(1));
    operation.task.inputs.push_back(task_input);
    operation.sources.push_back(
        {.dtype = dtype, .file = static_cast<std::uint32_t>(input), .begin = 0, .num_elements = num_elements, .children = {}});
  }
  tensor.parts.push_back(std::move(operation));
  return tensor;
}

/// Tensors of uneven sizes, as a model has them, of some 150 MiB in several files.
inline MergePlan plan_of(const std::string& method, std::uint64_t shard_size_bytes = 40 * kMiB) {
  std::vector<OutputTensor> tensors;
  for (int layer = 0; layer < 10; ++layer) {
    const std::string prefix = std::to_string(layer) + ".";
    tensors.push_back(merged(prefix + "norm", method, 4097));
    tensors.push_back(merged(prefix + "query", method, 1'000'003));
    tensors.push_back(merged(prefix + "up", method, 5'555'555));
    tensors.push_back(merged(prefix + "scale", method, 1, DType::kF32));
    tensors.push_back(merged(prefix + "none", method, 0));
    tensors.push_back(merged(prefix + "down", method, 1'300'001));
  }
  MergePlan plan;
  PlanOptions options;
  options.out_shard_size_bytes = shard_size_bytes;
  lay_out(std::move(tensors), options, plan);
  return plan;
}

}  // namespace moeweld::plan
