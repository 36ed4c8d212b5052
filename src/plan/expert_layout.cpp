#include "plan/expert_layout.h"

#include <algorithm>
#include <map>

#include "moeweld/base/error.h"

namespace moeweld::plan {

namespace {

/// "{layer}" of a family's name replaced.
std::string with_layer(std::string_view pattern, int layer) {
  std::string name(pattern);
  if (const std::size_t at = name.find("{layer}"); at != std::string::npos) name.replace(at, 7, std::to_string(layer));
  return name;
}

/// A tensor of its own, or more rows of the one before it.
void append(LogicalTensor tensor, std::string name, std::vector<OutputTensor>& result) {
  if (!result.empty() && result.back().name == name) {
    OutputTensor& whole = result.back();
    const Shape& shape = tensor.operation.task.shape;
    const bool fits =
        !shape.empty() && shape.size() == whole.shape.size() && std::equal(shape.begin() + 1, shape.end(), whole.shape.begin() + 1);
    if (!fits || tensor.operation.task.output_dtype != whole.dtype)
      throw Error(ErrorCode::kInternal, "The rows of a tensor that is made in parts do not fit each other.", {}, name);
    whole.shape[0] += shape[0];
    whole.parts.push_back(std::move(tensor.operation));
    return;
  }
  OutputTensor output;
  output.name = std::move(name);
  output.dtype = tensor.operation.result_dtype();
  output.shape = tensor.operation.task.shape;
  output.parts.push_back(std::move(tensor.operation));
  output.scales = std::move(tensor.scales);
  result.push_back(std::move(output));
}

struct RolePlace {
  std::size_t row = 0;
  std::size_t part = 0;
};

}  // namespace

std::vector<OutputTensor> arrange(std::vector<LogicalTensor> tensors, const model::Family* family, model::Layout layout) {
  std::vector<OutputTensor> result;
  if (family == nullptr || family->fused.empty() || (layout == model::Layout::kPerExpert && !family->always_fused)) {
    result.reserve(tensors.size());
    for (LogicalTensor& tensor : tensors) {
      std::string name = tensor.operation.name;
      append(std::move(tensor), std::move(name), result);
    }
    return result;
  }
  std::map<std::string_view, RolePlace> places;
  for (std::size_t row = 0; row < family->fused.size(); ++row) {
    for (std::size_t part = 0; part < family->fused[row].roles.size(); ++part) places[family->fused[row].roles[part]] = {row, part};
  }
  std::map<std::pair<int, std::size_t>, std::size_t> fused_at;                    // layer and row → index into result
  std::map<std::size_t, std::map<std::pair<int, std::size_t>, Operation>> parts;  // of that result, by expert and part
  for (LogicalTensor& tensor : tensors) {
    const auto place = places.find(tensor.key.role);
    if (place == places.end()) {
      std::string name = tensor.operation.name;
      for (const model::TensorRow& row : family->fused_names) {
        if (row.role == tensor.key.role) name = with_layer(row.name, tensor.key.layer);
      }
      append(std::move(tensor), std::move(name), result);
      continue;
    }
    if (tensor.scales) {
      throw Error(ErrorCode::kUnsupported,
                  "would be a part of a fused tensor of block-scaled FP8, which this version does not write: write bfloat16, or one tensor "
                  "for each expert",
                  {}, tensor.operation.name);
    }
    const auto [known, is_new] = fused_at.emplace(std::pair(tensor.key.layer, place->second.row), result.size());
    if (is_new) {
      OutputTensor fused;
      fused.name = with_layer(family->fused[place->second.row].name, tensor.key.layer);
      result.push_back(std::move(fused));
    }
    parts[known->second].emplace(std::pair(tensor.key.expert, place->second.part), std::move(tensor.operation));
  }
  for (const auto& [key, index] : fused_at) {
    OutputTensor& fused = result[index];
    const model::FusedRow& row = family->fused[key.second];
    const std::size_t num_parts = row.roles.size();
    auto& own = parts[index];
    fused.dtype = own.begin()->second.task.output_dtype;
    for (const auto& [place, operation] : own) {
      const DType dtype = operation.task.output_dtype;
      if (dtype == fused.dtype) continue;
      if (!is_arithmetic(dtype) || !is_arithmetic(fused.dtype)) {
        throw Error(ErrorCode::kInvalidInput,
                    "is " + std::string(name(dtype)) + ", another expert of the layer is " + std::string(name(fused.dtype)) +
                        ": they cannot be fused",
                    {}, operation.name);
      }
      fused.dtype = promote(fused.dtype, dtype);
    }
    const Shape matrix = own.begin()->second.task.shape;
    fused.shape = {matrix.at(0) * num_parts, matrix.at(1)};
    if (row.per_expert) fused.shape.insert(fused.shape.begin(), own.size() / num_parts);
    for (auto& [place, operation] : own) {
      if (operation.task.shape != matrix) {
        throw Error(ErrorCode::kInvalidInput,
                    "has shape " + to_string(operation.task.shape) + ", other experts of the layer have " + to_string(matrix) +
                        ": they cannot be fused",
                    {}, operation.name);
      }
      // A passthrough that was planned as a copy of bytes converts them now.
      if (operation.kind == Operation::Kind::kCopy && operation.task.output_dtype != fused.dtype) operation.kind = Operation::Kind::kMerge;
      operation.task.output_dtype = fused.dtype;
      fused.parts.push_back(std::move(operation));
    }
  }
  return result;
}

}  // namespace moeweld::plan
