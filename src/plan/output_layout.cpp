#include "plan/output_layout.h"

#include <algorithm>
#include <cstdio>
#include <string_view>
#include <unordered_set>

#include "moeweld/base/checked.h"
#include "moeweld/base/error.h"
#include "moeweld/formats/safetensors.h"

namespace moeweld::plan {
namespace {

std::uint64_t tensor_bytes(const OutputTensor& tensor) {
  const auto bytes = checked_multiply<std::uint64_t>(num_elements(tensor.shape), size_bytes(tensor.dtype));
  if (!bytes) throw Error(ErrorCode::kInvalidInput, "An output tensor would have more than 2^64 bytes.", {}, tensor.name);
  return *bytes;
}

void check(const std::vector<OutputTensor>& tensors) {
  std::unordered_set<std::string_view> names;
  names.reserve(tensors.size());
  for (const OutputTensor& tensor : tensors) {
    if (!names.insert(tensor.name).second) throw Error(ErrorCode::kInternal, "Two output tensors have this name.", {}, tensor.name);
    std::uint64_t covered = 0;
    for (const Operation& part : tensor.parts) covered += part.task.elements() * size_bytes(part.task.output_dtype);
    if (covered != tensor_bytes(tensor)) {
      throw Error(ErrorCode::kInternal,
                  "The operations of an output tensor yield " + std::to_string(covered) + " bytes, the tensor has " +
                      std::to_string(tensor_bytes(tensor)) + ".",
                  {}, tensor.name);
    }
  }
}

/// First tensor of each shard, and the number of tensors at the end.
std::vector<std::size_t> shard_borders(const std::vector<OutputTensor>& tensors, std::uint64_t shard_size_bytes) {
  std::vector<std::size_t> borders{0};
  std::uint64_t filled = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::uint64_t size = tensor_bytes(tensors[i]);
    if (i != borders.back() && (filled > shard_size_bytes || size > shard_size_bytes - filled)) {
      borders.push_back(i);
      filled = 0;
    }
    filled += size;
  }
  if (!tensors.empty()) borders.push_back(tensors.size());
  return borders;
}

std::string shard_name(std::size_t index, std::size_t count) {
  if (count == 1) return "model.safetensors";
  char name[80];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", index + 1, count);
  return name;
}

}  // namespace

void lay_out(std::vector<OutputTensor> tensors, const PlanOptions& options, MergePlan& plan) {
  check(tensors);
  const std::vector<std::size_t> borders = shard_borders(tensors, options.out_shard_size_bytes);
  const std::size_t num_shards = borders.size() - 1;
  plan.output_files.clear();
  plan.tensors.clear();
  plan.operations.clear();
  plan.tensors.reserve(tensors.size());
  std::size_t num_operations = 0;
  for (const OutputTensor& tensor : tensors) num_operations += tensor.parts.size();
  plan.operations.reserve(num_operations);

  for (std::size_t shard = 0; shard < num_shards; ++shard) {
    const auto first = tensors.begin() + static_cast<std::ptrdiff_t>(borders[shard]);
    const auto last = tensors.begin() + static_cast<std::ptrdiff_t>(borders[shard + 1]);
    std::stable_sort(first, last, [](const OutputTensor& a, const OutputTensor& b) { return size_bytes(a.dtype) > size_bytes(b.dtype); });

    std::vector<formats::TensorLayout> layout;
    layout.reserve(static_cast<std::size_t>(last - first));
    for (auto tensor = first; tensor != last; ++tensor) layout.push_back({tensor->name, tensor->dtype, tensor->shape});

    PlannedOutputFile file;
    file.name = shard_name(shard, num_shards);
    file.header = formats::serialize_safetensors_header(layout);
    std::uint64_t position = file.header.size();
    for (auto tensor = first; tensor != last; ++tensor) {
      const std::uint64_t size = tensor_bytes(*tensor);
      std::uint64_t offset = 0;
      for (Operation& part : tensor->parts) {
        part.tensor = static_cast<std::uint32_t>(plan.tensors.size());
        part.offset_bytes = offset;
        offset += part.task.elements() * size_bytes(part.task.output_dtype);
        plan.operations.push_back(std::move(part));
      }
      plan.tensors.push_back(
          {std::move(tensor->name), tensor->dtype, std::move(tensor->shape), static_cast<std::uint32_t>(shard), position, size});
      position += size;
    }
    file.size_bytes = position;
    plan.output_files.push_back(std::move(file));
  }
}

}  // namespace moeweld::plan
