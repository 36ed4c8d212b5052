#pragma once
/// A mixture that stays what it is but for its routed experts: reduced, or added to.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "moeweld/base/error.h"
#include "moeweld/formats/json.h"
#include "plan/expert_layout.h"
#include "plan/input_models.h"
#include "plan/slices.h"
#include "plan/tensor_matching.h"

namespace moeweld::plan {

/// All tensors of inputs[0], in the order in which they are written. Stays where it is: the matching points into it.
struct WholeMixture {
  explicit WholeMixture(const InputModels& inputs, ProblemList& problems);
  WholeMixture(const WholeMixture&) = delete;
  WholeMixture& operator=(const WholeMixture&) = delete;

  std::vector<Module> modules;
  Matching matching;
};

/// How experts are told apart in a family's names.
bool is_expert_role(std::string_view role);

/// Neurons of one routed expert; 0 where the model has none.
std::uint64_t expert_width(const InputModel& mixture);

/// Groups that a reader of this config.json routes within: n_group of DeepSeek-V2 (unless its topk_method is greedy), V3 and GLM-4.5; else
/// 1.
std::uint32_t num_routing_groups(const InputModel& mixture);

/// Experts that each token takes, as config.json or its reader's default says; 0 where neither does.
std::uint32_t experts_per_token(const InputModel& mixture);

/// Whether every token finds its experts: `num_experts` are at least `experts_per_token`, as many in each routing group, enough in the
/// groups that are chosen. Problems are put down to `path` and `line`.
void check_routing(const InputModel& mixture, std::uint32_t num_experts, std::uint32_t experts_per_token, const std::string& path, int line,
                   ErrorCode code, ProblemList& problems);

/// What stands in for a mixture's routed experts.
class RoutedExperts {
 public:
  RoutedExperts() = default;
  RoutedExperts(const RoutedExperts&) = delete;
  RoutedExperts& operator=(const RoutedExperts&) = delete;
  virtual ~RoutedExperts() = default;
  virtual std::uint32_t num_experts() const = 0;
  /// The matrix of expert `key.expert` of the output.
  virtual Operation matrix(const model::TensorKey& key, const std::string& name) = 0;
  /// All rows of a router, or all numbers of its correction bias, in parts one below the other.
  virtual std::vector<Operation> rows(const MatchedTensor& tensor) = 0;
};

/// Type of the output's tensor: `wanted`, else the input's; the routers' correction bias is F32 always.
DType kept_dtype(const model::CatalogEntry& entry, std::optional<DType> wanted);

/// A copy of `count` rows (numbers of a vector) of an input's tensor from `first` on.
Operation copy_rows(const std::string& name, const InputModel& input, const model::CatalogEntry& entry, std::uint64_t first,
                    std::uint64_t count, DType dtype);

/// Copies of everything, and `experts` in place of the routed ones.
std::vector<LogicalTensor> plan_mixture(const InputModel& mixture, const WholeMixture& whole, std::optional<DType> dtype,
                                        RoutedExperts& experts);

/// The mixture's config.json with other numbers of experts.
formats::Json mixture_config(const InputModel& mixture, const WholeMixture& whole, DType dtype, std::uint32_t num_experts,
                             std::uint32_t experts_per_token, std::vector<std::string>& notes);

}  // namespace moeweld::plan
