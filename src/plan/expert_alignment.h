#pragma once
/// `align_experts:`: which operations of a merge wait for an order of experts and neurons.

#include "moeweld/base/error.h"
#include "moeweld/config/align_experts.h"
#include "moeweld/plan/merge_plan.h"
#include "plan/input_models.h"
#include "plan/tensor_matching.h"

namespace moeweld::plan {

/// Which layers get an alignment.
enum class AlignedLayers : std::uint8_t {
  kOfSeveralModels,
  kAll,  ///< of which there is one model, too: to look at its experts
};

/// Opens plan.alignments for every layer of `matching` that has experts, from several models unless `layers` says all, and puts views that
/// wait for orders around the sources of its operations. To be called once the plan's operations are laid out. Models are brought into the
/// order of the base (else of the first model). Problems: no experts at all, experts of types that have no arithmetic or differ within a
/// layer.
void align_experts(const config::AlignExperts& align, const Matching& matching, const InputModels& inputs, const std::string& config_path,
                   ProblemList& problems, MergePlan& plan, AlignedLayers layers = AlignedLayers::kOfSeveralModels);

}  // namespace moeweld::plan
