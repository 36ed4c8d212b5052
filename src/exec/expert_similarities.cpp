#include <algorithm>

#include "exec/exchange.h"
#include "exec/layer_experts.h"
#include "moeweld/align/similarity.h"
#include "moeweld/base/text.h"
#include "moeweld/exec/alignment.h"

namespace moeweld::exec {

template <class Archive>
void serialize(Archive& archive, LayerSimilarities& value) {
  archive(value.layer, value.num_experts, value.router, value.weights, value.is_sketched);
}

namespace {

LayerSimilarities look_at_layer(const plan::MergePlan& plan, const plan::Alignment& alignment, InputFiles& files, int threads) {
  const std::uint32_t second = alignment.models.empty() ? alignment.reference : alignment.models.front();
  LayerExperts a(plan, alignment, alignment.reference, files);
  LayerExperts b(plan, alignment, second, files);
  const std::vector<float> router_a = a.router();
  const std::vector<float> router_b = b.router();
  align::ExpertSimilarities found = align::expert_similarities(alignment.num_experts, router_a, a, router_b, b, std::max(1, threads));
  return {alignment.layer, alignment.num_experts, std::move(found.router), std::move(found.weights), found.is_sketched};
}

void check_memory(const plan::MergePlan& plan, std::uint64_t limit_bytes) {
  std::uint64_t most = 0;
  for (const plan::Alignment& alignment : plan.alignments) {
    most =
        std::max(most, 2 * largest_expert_bytes(plan, alignment) + align::similarity_bytes(alignment.num_experts, alignment.num_neurons));
  }
  if (most <= limit_bytes) return;
  throw Error(ErrorCode::kUsage, "a memory limit of " + format_memory(limit_bytes) +
                                     " per rank is too small to compare these experts; it needs " + "at least " + format_memory(most) +
                                     " (--memory-limit)");
}

}  // namespace

std::vector<LayerSimilarities> find_similarities(Peers& peers, Storage& storage, const plan::MergePlan& plan,
                                                 const ExecuteOptions& options) {
  const auto gathered = exchange(peers, [&] {
    check_memory(plan, options.memory_limit_bytes);
    InputFiles files(storage, plan, options.io);
    std::vector<LayerSimilarities> mine;
    const auto num_ranks = static_cast<std::size_t>(peers.size());
    for (std::size_t index = static_cast<std::size_t>(peers.rank()); index < plan.alignments.size(); index += num_ranks) {
      if (options.on_layer) options.on_layer(index, plan.alignments.size());
      mine.push_back(look_at_layer(plan, plan.alignments[index], files, options.threads));
    }
    return to_archive(mine);
  });
  std::vector<LayerSimilarities> result;
  for (const std::vector<std::byte>& bytes : gathered) {
    for (LayerSimilarities& layer : from_archive<std::vector<LayerSimilarities>>(bytes)) result.push_back(std::move(layer));
  }
  std::sort(result.begin(), result.end(), [](const auto& a, const auto& b) { return a.layer < b.layer; });
  return result;
}

}  // namespace moeweld::exec
