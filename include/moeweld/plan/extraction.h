#pragma once
/// `moeweld extract`: an expert of a mixture, a merge over its experts, or every expert becomes the FFN of a dense model.

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "moeweld/config/model_reference.h"
#include "moeweld/plan/merge_plan.h"
#include "moeweld/plan/planner.h"

namespace moeweld::plan {

/// What becomes of the experts of each layer.
struct Extraction {
  enum class What : std::uint8_t {
    kExpert,          ///< one is taken
    kAll,             ///< each becomes a model of its own, in OUT/expert-0, …
    kAverage,         ///< their weighted average
    kRouterWeighted,  ///< weighted by ‖r_e − r̄‖, the norms of the layer's centred router rows: adding one vector to all rows changes
                      ///< nothing after the softmax. Equal weights where all rows are the same
    kMerge,  ///< any merge method over them
  };
  What what = What::kExpert;
  std::vector<int> experts;     ///< kExpert: one index, or one for each layer
  std::vector<double> weights;  ///< kAverage: one for each expert; empty: equal ones
  std::string method;           ///< kMerge
  /// kMerge: name and value, one for all experts or one for each. Booleans are 0 or 1.
  std::vector<std::pair<std::string, std::vector<double>>> parameters;
  std::optional<int> base;         ///< kMerge: the expert that methods with a base take as theirs
  bool drop_gated_shared = false;  ///< else a gated shared expert, which no dense FFN can be, is refused
};

/// The dense model is the family's twin (model::extracted_family), in either layout of the input. Ungated shared experts are concatenated
/// to the extracted one (outputs add up), and narrower layers padded with zeros to the widest, so that all layers have one width; a merge
/// over experts merges exactly the matrices that kAll writes. Nothing but headers is read. Throws Error with all problems.
MergePlan make_extraction_plan(const config::ModelReference& model, const Extraction& extraction, ModelSource& models,
                               const PlanOptions& options);

}  // namespace moeweld::plan
