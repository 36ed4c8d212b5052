#pragma once
/// Where each output tensor stands: which file, at which byte.

#include <optional>
#include <span>
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

/// First tensor of each shard, and the number of tensors at the end.
std::vector<std::size_t> shard_borders(const std::vector<OutputTensor>& tensors, std::uint64_t shard_size_bytes);
/// Hugging Face's name of the shard, counted from 0.
std::string shard_name(std::size_t index, std::size_t count);
/// Adds one file of these tensors to plan.output_files, tensors and operations; the tensors are sorted by the width of their elements and
/// moved from. With `own_metadata_bytes` it is an HDF5 file, without a header.
void append_file(std::string name, std::span<OutputTensor> tensors, MergePlan& plan, std::uint64_t own_metadata_bytes = 0);
/// Throws Error(kInternal) when parts do not cover their tensor or a name comes twice.
void check_tensors(const std::vector<OutputTensor>& tensors);

/// Shares the tensors out to files in the given order: a file is closed when the next tensor would take its data beyond
/// options.out_shard_size_bytes. Names are Hugging Face's: model.safetensors, or model-00001-of-00003.safetensors. Within a file
/// wider elements come first (else the given order), so that every element is naturally aligned. Fills plan.output_files, tensors and
/// operations. For HDF5 there is one file, model.h5, whose first own_metadata_bytes are left to its writer. Throws Error(kInternal) when
/// parts do not cover their tensor or a name comes twice.
void lay_out(std::vector<OutputTensor> tensors, const PlanOptions& options, MergePlan& plan);

}  // namespace moeweld::plan
