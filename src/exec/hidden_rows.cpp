#include "exec/hidden_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "exec/prepare.h"
#include "moeweld/infer/forward.h"

namespace moeweld::exec {

namespace {

/// Shorter vectors are divided by this, as in mergekit-moe.
constexpr double kSmallestDivisor = 1e-8;

using Prompts = std::vector<std::vector<std::int64_t>>;

/// A prompt's state goes to row `expert` of a layer, times `weight`.
struct Use {
  std::size_t expert = 0;
  double weight = 0;
};

/// By distinct prompt.
std::vector<std::vector<Use>> uses_of(const plan::Slot& slot) {
  std::map<std::vector<std::int64_t>, std::size_t> index;
  std::vector<std::vector<Use>> uses;
  const auto add = [&](const std::vector<Prompts>& experts, double sign) {
    for (std::size_t expert = 0; expert < experts.size(); ++expert) {
      for (const auto& prompt : experts[expert]) {
        const auto [found, is_new] = index.try_emplace(prompt, uses.size());
        if (is_new) uses.emplace_back();
        uses[found->second].push_back({expert, sign / static_cast<double>(experts[expert].size())});
      }
    }
  };
  add(slot.positive_ids, 1.0);
  add(slot.negative_ids, -1.0);
  return uses;
}

std::vector<double> state_of(const plan::Slot& slot, const infer::SequenceView& view) {
  const std::size_t width = slot.base.hidden_size;
  const std::span<const float> last = view.hidden.subspan((view.num_tokens - 1) * width, width);
  if (slot.state != plan::Slot::State::kMeanOfTokens) return {last.begin(), last.end()};
  std::vector<double> mean(width);
  for (std::size_t token = 0; token < view.num_tokens; ++token) {
    for (std::size_t i = 0; i < width; ++i) mean[i] += view.hidden[token * width + i];
  }
  for (double& value : mean) value /= static_cast<double>(view.num_tokens);
  return mean;
}

void normalise(std::span<double> row) {
  double sum = 0;
  for (const double value : row) sum += value * value;
  const double norm = std::max(std::sqrt(sum), kSmallestDivisor);
  for (double& value : row) value /= norm;
}

}  // namespace

Prompts distinct_prompts(const plan::Slot& slot) {
  std::map<std::vector<std::int64_t>, bool> known;
  Prompts prompts;
  for (const auto* experts : {&slot.positive_ids, &slot.negative_ids}) {
    for (const Prompts& expert : *experts) {
      for (const auto& prompt : expert) {
        if (known.try_emplace(prompt, true).second) prompts.push_back(prompt);
      }
    }
  }
  return prompts;
}

std::vector<double> hidden_rows(Peers& peers, Storage& storage, const plan::Slot& slot, const ExecuteOptions& options,
                                std::string& blas_core) {
  const std::size_t width = slot.base.hidden_size;
  const std::size_t num_experts = slot.positive_ids.size();
  const Prompts prompts = distinct_prompts(slot);
  const std::vector<std::vector<Use>> uses = uses_of(slot);
  constexpr std::size_t kNoGroup = std::numeric_limits<std::size_t>::max();
  std::vector<std::size_t> group_of_layer(slot.base.layers.size(), kNoGroup);
  for (std::size_t group = 0; group < slot.layers.size(); ++group) group_of_layer.at(slot.layers[group]) = group;
  std::vector<std::vector<double>> groups(slot.layers.size(), std::vector<double>(num_experts * width));

  infer::ForwardOptions forward;
  const std::uint64_t own_bytes = slot.size_bytes();
  forward.memory_limit_bytes = options.memory_limit_bytes > own_bytes ? options.memory_limit_bytes - own_bytes : 0;
  forward.threads = std::max(1, options.threads);
  forward.io = options.io;
  forward.on_step = options.on_layer;
  // Sequences come in ascending order within a layer, so sums are always made in the same order.
  const infer::Observer observe = [&](const infer::SequenceView& view) {
    const std::size_t group = group_of_layer[view.layer];
    if (group == kNoGroup) return;
    const std::vector<double> state = state_of(slot, view);
    for (const Use& use : uses[view.sequence]) {
      double* row = groups[group].data() + use.expert * width;
      for (std::size_t i = 0; i < width; ++i) row[i] += use.weight * state[i];
    }
  };
  (slot.state == plan::Slot::State::kRouterInput ? forward.on_router_input : forward.on_layer_input) = observe;
  blas_core = infer::forward(peers, storage, slot.base, prompts, forward).blas_core;

  std::vector<double> rows;
  rows.reserve(num_elements(slot.shape));
  for (std::vector<double>& group : groups) {
    for (std::size_t expert = 0; expert < num_experts; ++expert) normalise(std::span(group).subspan(expert * width, width));
    fold_shared_rows(slot.num_shared, width, group);
    rows.insert(rows.end(), group.begin(), group.end());
    std::vector<double>().swap(group);
  }
  return rows;
}

}  // namespace moeweld::exec
