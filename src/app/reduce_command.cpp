#include "app/run.h"
#include "moeweld/base/archive.h"
#include "moeweld/exec/expert_measures.h"
#include "moeweld/plan/reduction.h"

namespace moeweld::app {

namespace {

constexpr std::uint64_t kLargestScoresBytes = 100'000'000;

plan::ReductionRequest request_of(const Options& options) {
  plan::ReductionRequest request;
  request.model = config::parse_model_reference(options.input);
  request.num_experts = static_cast<std::uint32_t>(options.num_experts);
  request.by = options.cluster ? plan::ReductionRequest::By::kCluster : plan::ReductionRequest::By::kPrune;
  if (options.experts_per_token > 0) request.experts_per_token = static_cast<std::uint32_t>(options.experts_per_token);
  request.scores = options.scores_file;
  return request;
}

}  // namespace

int run_reduce(Peers& peers, Storage& storage, const Options& options) {
  const plan::ReductionRequest request = request_of(options);
  plan::ModelSource models(storage, hub_cache(options));
  plan::ExpertScores scores;  // rank 0's, unless they are measured
  std::vector<std::byte> bytes;
  agree_on(peers, [&] {
    if (peers.rank() != 0) return;
    const plan::MixtureSurvey survey = plan::survey_mixture(request, models);
    bytes = plan::encode_survey(survey);
    if (request.scores.empty()) return;
    if (!storage.exists(request.scores)) throw Error(ErrorCode::kInvalidInput, "there is no such file of scores", request.scores);
    scores = plan::parse_scores(storage.read_text(request.scores, kLargestScoresBytes), request.scores, survey, options.cluster);
  });
  peers.broadcast(bytes, 0);
  const plan::MixtureSurvey survey = plan::decode_survey(bytes);
  plan::ExpertSimilarities similarities;
  if (options.cluster) {
    similarities = exec::expert_similarities(peers, storage, survey, options.io, options.memory_limit_bytes, options.threads);
  } else if (request.scores.empty()) {
    scores = exec::router_row_norms(peers, storage, survey, options.io);
  }
  const plan::MergePlan plan = share_plan(peers, [&] {
    const plan::Reduction reduction = options.cluster ? plan::cluster(survey, similarities, scores, request.num_experts)
                                                      : plan::prune(survey, scores, request.num_experts);
    return plan::make_reduction_plan(request, reduction, models, options.plan);
  });
  if (!options.dry_run) {
    execute_plan(peers, storage, plan, options);
  } else if (peers.rank() == 0) {
    print_plan(plan, options);
  }
  return 0;
}

}  // namespace moeweld::app
