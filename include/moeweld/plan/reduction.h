#pragma once
/// `moeweld reduce`: a mixture with fewer experts. Which experts stay is settled before anything is planned, so that the plan is concrete.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "moeweld/base/shape.h"
#include "moeweld/config/model_reference.h"
#include "moeweld/plan/merge_plan.h"
#include "moeweld/plan/planner.h"

namespace moeweld::plan {

struct ReductionRequest {
  enum class By : std::uint8_t {
    kPrune,    ///< the experts of the lowest scores go
    kCluster,  ///< experts alike become one, their weighted mean
  };
  config::ModelReference model;
  std::uint32_t num_experts = 0;  ///< of the output
  By by = By::kPrune;
  std::optional<std::uint32_t> experts_per_token;  ///< instead of the model's
  std::string scores;                              ///< name of the file that the scores come from; empty: measured
};

/// By layer, for every layer with experts: a finite number for each expert.
using ExpertScores = std::map<int, std::vector<double>>;

/// By layer: cosine similarity of experts, row-major [experts, experts], symmetric.
using ExpertSimilarities = std::map<int, std::vector<double>>;

/// Where the routers and experts of a mixture are: what is measured before the reduction is planned.
struct MixtureSurvey {
  struct Layer {
    int layer = 0;
    std::string router_name;
    SourceView router;                ///< [experts, hidden]
    std::vector<SourceView> experts;  ///< gate, up and down of expert 0, then of expert 1, …
  };
  std::string model;  ///< as a user would type it
  std::vector<PlannedInputFile> input_files;
  std::vector<Layer> layers;  ///< ascending
  std::uint32_t num_experts = 0;
  std::uint32_t num_groups = 1;  ///< experts [g·E/G, (g + 1)·E/G) are routed as group g
};

std::vector<std::byte> encode_survey(const MixtureSurvey& survey);
MixtureSurvey decode_survey(std::span<const std::byte> bytes);

/// Reads headers only. Throws Error with every problem found: no mixture, more experts than there are, fewer than each token needs, numbers
/// that the routing groups do not divide.
MixtureSurvey survey_mixture(const ReductionRequest& request, ModelSource& models);

/// `{"0": [0.25, …], "1": […]}`: for each layer with experts, by its number, one number for each expert; the higher, the longer it stays.
/// Throws Error with every problem found: missing or unknown layers, other numbers of scores, what is no finite number, or, where they
/// are weights, is negative.
ExpertScores parse_scores(const std::string& text, const std::string& path, const MixtureSurvey& survey, bool are_weights);

/// One expert of the output: the weighted mean of these. One alone is kept as it is.
struct ExpertGroup {
  std::vector<std::uint32_t> experts;  ///< ascending
  std::vector<double> weights;         ///< add up to 1

  bool operator==(const ExpertGroup&) const = default;
};

/// By layer, the experts of the output in their order.
using Reduction = std::map<int, std::vector<ExpertGroup>>;

/// Keeps the `num_experts` experts of the highest scores in their order; of equal ones the first. Of each routing group as many.
Reduction prune(const MixtureSurvey& survey, const ExpertScores& scores, std::uint32_t num_experts);

/// Merges, again and again, the two clusters whose members are most alike on average (average linkage; of equal ones the first), within
/// routing groups, until `num_experts` are left. Clusters stand in the order of their first members. `scores` weigh the members of a
/// cluster in its mean; empty, or adding up to 0: all alike.
Reduction cluster(const MixtureSurvey& survey, const ExpertSimilarities& similarities, const ExpertScores& scores,
                  std::uint32_t num_experts);

/// Throws Error with every problem found.
MergePlan make_reduction_plan(const ReductionRequest& request, const Reduction& reduction, ModelSource& models, const PlanOptions& options);

}  // namespace moeweld::plan
