#pragma once
/// From logical matrices to the tensors of a layout: one per matrix, or experts fused.

#include <optional>
#include <string>
#include <vector>

#include "moeweld/model/family.h"
#include "plan/output_layout.h"

namespace moeweld::plan {

struct LogicalTensor {
  model::TensorKey key;
  Operation operation;                             ///< its name is the per-expert name
  std::optional<Operation> scales = std::nullopt;  ///< of codes of block-scaled FP8
};

/// `tensors` in the order in which they are written. With kFused, and always for a family that knows nothing else, the experts' matrices of
/// a layer become the family's fused tensors, and other tensors take the names that go with that layout. A fused tensor has one dtype, the
/// promoted one of its parts. Tensors of one name that follow each other are parts of one: rows below rows, of one dtype.
std::vector<OutputTensor> arrange(std::vector<LogicalTensor> tensors, const model::Family* family, model::Layout layout);

}  // namespace moeweld::plan
