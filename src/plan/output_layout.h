#pragma once
/// Where each output tensor stands: which file, at which byte.

#include <optional>
#include <string>
#include <vector>

#include "moeweld/base/dtype.h"
#include "moeweld/base/shape.h"
#include "moeweld/plan/merge_plan.h"
#include "moeweld/plan/planner.h"

namespace moeweld::plan {

/// A tensor of the output and how its bytes come about.
struct OutputTensor {
  std::string name;
  DType dtype{};
  Shape shape;
  /// In the order of their bytes; together they cover the tensor. `tensor` and `offset_bytes` are filled by lay_out; task.shape and
  /// task.output_dtype say how long each is.
  std::vector<Operation> parts;
  /// Of codes of block-scaled FP8: how their scales come about. They become the tensor NAME_scale_inv, right after the codes, so that
  /// whoever computes the codes has them.
  std::optional<Operation> scales = std::nullopt;
};

/// Shares the tensors out to files in the given order: a file is closed when the next tensor would take its data beyond
/// options.out_shard_size_bytes. Names are Hugging Face's: model.safetensors, or model-00001-of-00003.safetensors. Within a file
/// wider elements come first (else the given order), so that every element is naturally aligned. Fills plan.output_files, tensors and
/// operations. Throws Error(kInternal) when parts do not cover their tensor or a name comes twice.
void lay_out(std::vector<OutputTensor> tensors, const PlanOptions& options, MergePlan& plan);

}  // namespace moeweld::plan
