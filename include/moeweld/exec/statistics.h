#pragma once
/// What a merge did, tensor by tensor: gathered while the data is in memory anyway.

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "moeweld/base/dtype.h"
#include "moeweld/base/shape.h"
#include "moeweld/plan/merge_plan.h"

namespace moeweld::exec {

/// Of an input that comes from no model: zeros that stand for a tensor that a model has not.
constexpr std::uint32_t kNoModel = std::numeric_limits<std::uint32_t>::max();

/// Of one input, or of the output. NaN where a figure has no value: a cosine with zeros, a comparison with nothing.
struct ValueStatistics {
  double norm = 0;  ///< square root of the sum of squares
  double max_absolute = 0;
  double cosine = 0;           ///< with the reference
  double difference_norm = 0;  ///< of the difference to the reference: the task vector's, where it is a base
  std::uint64_t non_finite = 0;
};

/// Of one logical matrix of the output: each expert's by itself, whatever the layout. Elements at which any input or the output is not
/// finite are counted and left out of all else.
struct TensorStatistics {
  std::string output;   ///< which model, where a run writes several; else empty
  std::string name;     ///< per-expert tensor name
  std::string pattern;  ///< the name with {layer} and {expert} for their numbers: equal for tensors of one role
  int layer = -1;
  int expert = -1;
  std::string method;  ///< or copy, random, constant, rows
  DType dtype{};
  Shape shape;
  bool is_measured = false;           ///< this run computed all of it; else the figures are NaN and 0
  bool has_base = false;              ///< the reference is a base; else it is the first input
  int reference = -1;                 ///< index into inputs; -1: there is no input
  std::vector<std::uint32_t> models;  ///< of each input, indices into MergePlan::models, or kNoModel
  std::vector<ValueStatistics> inputs;
  ValueStatistics result;
  double sign_conflicts = 0;  ///< share of elements at which inputs (their differences to the base, where there is one) disagree in sign
  double density_kept = 0;    ///< share of elements that are not the base's; without a base, that are not 0
  std::uint64_t left_out = 0;
};

/// Whether there are statistics of an operation: of values that are computed with, not of integers, codes without scales, and scales.
bool has_statistics(const plan::MergePlan& plan, std::uint32_t operation);

/// The most that gathering takes on one rank.
std::uint64_t statistics_bytes(const plan::MergePlan& plan);

}  // namespace moeweld::exec
