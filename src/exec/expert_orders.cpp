#include <algorithm>
#include <limits>
#include <numeric>

#include "exec/exchange.h"
#include "exec/layer_experts.h"
#include "exec/prepare.h"
#include "moeweld/align/layer_match.h"
#include "moeweld/exec/alignment.h"

namespace moeweld::exec {

namespace {

/// What a rank found for one layer and one model.
struct Found {
  AlignedLayer layer;
  std::vector<std::uint32_t> orders;
};

template <class Archive>
void serialize(Archive& archive, Found& value) {
  archive(value.layer, value.orders);
}

align::Match match_of(config::AlignExperts::Match match) {
  switch (match) {
    case config::AlignExperts::Match::kRouter:
      return align::Match::kRouter;
    case config::AlignExperts::Match::kWeights:
      return align::Match::kWeights;
    case config::AlignExperts::Match::kBoth:
      return align::Match::kBoth;
  }
  return align::Match::kBoth;
}

align::LayerTask task_of(const plan::Alignment& alignment, int threads) {
  return {.num_experts = alignment.num_experts,
          .num_groups = alignment.num_groups,
          .hidden = alignment.hidden,
          .match = match_of(alignment.match),
          .neurons = alignment.neurons,
          .threads = std::max(1, threads)};
}

std::uint64_t count_moved(std::span<const std::uint32_t> order) {
  std::uint64_t count = 0;
  for (std::size_t i = 0; i < order.size(); ++i) count += order[i] != i ? 1 : 0;
  return count;
}

Found describe(const plan::Alignment& alignment, const align::LayerMatch& match) {
  Found found;
  found.orders = match.experts;
  found.layer.experts_moved = static_cast<std::uint32_t>(count_moved(match.experts));
  for (const std::vector<std::uint32_t>& neurons : match.neurons) {
    found.layer.neurons_moved += count_moved(neurons);
    found.orders.insert(found.orders.end(), neurons.begin(), neurons.end());
  }
  found.layer.router_before = match.before.router;
  found.layer.router_after = match.after.router;
  const bool looks_at_weights = alignment.neurons || alignment.match != config::AlignExperts::Match::kRouter;
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  found.layer.weights_before = looks_at_weights ? match.before.weights : kNone;
  found.layer.weights_after = looks_at_weights ? match.after.weights : kNone;
  return found;
}

std::vector<Found> align_layer(const plan::MergePlan& plan, std::uint32_t index, InputFiles& files, int threads) {
  const plan::Alignment& alignment = plan.alignments[index];
  LayerExperts reference(plan, alignment, alignment.reference, files);
  const std::vector<float> router = reference.router();
  align::LayerMatcher matcher(task_of(alignment, threads), router, reference);
  std::vector<Found> result;
  for (std::uint32_t model = 0; model < alignment.models.size(); ++model) {
    LayerExperts experts(plan, alignment, alignment.models[model], files);
    try {
      result.push_back(describe(alignment, matcher.match(experts.router(), experts)));
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kInvalidInput || !error.problems().front().path.empty()) throw;
      throw Error(error.code(), "experts of '" + aligned_model(plan, alignment, model) + "' cannot be aligned in layer " +
                                    std::to_string(alignment.layer) + ": " + error.problems().front().message);
    }
    result.back().layer.alignment = index;
    result.back().layer.model = model;
  }
  return result;
}

}  // namespace

std::string aligned_model(const plan::MergePlan& plan, const plan::Alignment& alignment, std::uint32_t model) {
  const plan::SourceView& view = plan.operations[alignment.router].sources[alignment.models[model]];
  return plan.models[plan.input_files[plan::first_leaf(view).file].model].reference;
}

ExpertOrders find_expert_orders(Peers& peers, Storage& storage, const plan::MergePlan& plan, const ExecuteOptions& options) {
  ExpertOrders result;
  if (plan.alignments.empty()) return result;
  const std::size_t size = plan.alignments.size();
  const auto gathered = exchange(peers, [&] {
    InputFiles files(storage, plan, options.io);
    std::vector<Found> mine;
    const auto num_ranks = static_cast<std::size_t>(peers.size());
    for (std::size_t index = static_cast<std::size_t>(peers.rank()); index < size; index += num_ranks) {
      if (options.on_layer) options.on_layer(index, size);
      std::vector<Found> found = align_layer(plan, static_cast<std::uint32_t>(index), files, options.threads);
      std::move(found.begin(), found.end(), std::back_inserter(mine));
    }
    return to_archive(mine);
  });
  result.orders.resize(plan.num_orders);
  for (const std::vector<std::byte>& bytes : gathered) {
    for (const Found& found : from_archive<std::vector<Found>>(bytes)) {
      const std::uint64_t first = plan.alignments.at(found.layer.alignment).expert_order(found.layer.model);
      if (first + found.orders.size() > result.orders.size()) throw Error(ErrorCode::kInternal, "a rank found longer orders than planned");
      std::copy(found.orders.begin(), found.orders.end(), result.orders.begin() + static_cast<std::ptrdiff_t>(first));
      result.layers.push_back(found.layer);
    }
  }
  std::sort(result.layers.begin(), result.layers.end(),
            [](const AlignedLayer& a, const AlignedLayer& b) { return std::pair(a.alignment, a.model) < std::pair(b.alignment, b.model); });
  return result;
}

std::vector<ManifestAlignment> describe_orders(const plan::MergePlan& plan, const ExpertOrders& orders) {
  std::vector<ManifestAlignment> result;
  const std::span<const std::uint32_t> all = orders.orders;
  for (const AlignedLayer& layer : orders.layers) {
    const plan::Alignment& alignment = plan.alignments[layer.alignment];
    ManifestAlignment entry{.layer = alignment.layer,
                            .model = aligned_model(plan, alignment, layer.model),
                            .router_before = layer.router_before,
                            .router_after = layer.router_after,
                            .weights_before = layer.weights_before,
                            .weights_after = layer.weights_after};
    const auto experts = all.subspan(alignment.expert_order(layer.model), alignment.num_experts);
    entry.experts.assign(experts.begin(), experts.end());
    for (std::uint32_t expert = 0; alignment.neurons && expert < alignment.num_experts; ++expert) {
      const auto neurons = all.subspan(alignment.neuron_order(layer.model, expert), alignment.num_neurons);
      entry.neurons.emplace_back(neurons.begin(), neurons.end());
    }
    result.push_back(std::move(entry));
  }
  return result;
}

std::uint64_t expert_order_bytes(const plan::MergePlan& plan, int threads) {
  std::uint64_t most = 0;
  for (const plan::Alignment& alignment : plan.alignments) {
    most = std::max(
        most, 2 * largest_expert_bytes(plan, alignment) + align::layer_match_bytes(task_of(alignment, threads), alignment.num_neurons));
  }
  // All orders as they are gathered and as they are kept.
  return most + 2 * plan.num_orders * sizeof(std::uint32_t);
}

}  // namespace moeweld::exec
