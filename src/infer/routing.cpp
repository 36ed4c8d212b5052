#include "infer/routing.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "moeweld/base/elementary.h"

namespace moeweld::infer {

void choose_experts(std::span<const float> logits, std::uint64_t count, bool normalise, std::vector<std::uint32_t>& experts,
                    std::vector<float>& weights) {
  const auto rank_of = [&](std::uint32_t expert) {
    return std::isnan(logits[expert]) ? -std::numeric_limits<float>::infinity() : logits[expert];
  };
  std::vector<std::uint32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0U);
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count), order.end(), [&](std::uint32_t a, std::uint32_t b) {
    const float first = rank_of(a);
    const float second = rank_of(b);
    return first != second ? first > second : a < b;
  });
  experts.assign(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count));
  const double highest = logits[experts.front()];
  double sum = 0;
  if (normalise) {
    for (const std::uint32_t expert : experts) sum += exact_exp(logits[expert] - highest);
  } else {
    for (const float logit : logits) sum += exact_exp(logit - highest);
  }
  weights.clear();
  for (const std::uint32_t expert : experts) weights.push_back(static_cast<float>(exact_exp(logits[expert] - highest) / sum));
}

std::vector<ExpertLoad> route(const Plane& logits, std::uint64_t experts_per_token, bool normalise,
                              std::span<const std::uint64_t> pack_ends) {
  std::vector<ExpertLoad> loads(logits.columns);
  std::vector<std::vector<std::uint64_t>> borders(logits.columns);
  std::vector<std::uint32_t> experts;
  std::vector<float> weights;
  std::uint64_t token = 0;
  for (const std::uint64_t end : pack_ends) {
    for (; token < end; ++token) {
      choose_experts(std::span(logits.row(token), logits.columns), experts_per_token, normalise, experts, weights);
      for (std::size_t i = 0; i < experts.size(); ++i) {
        loads[experts[i]].tokens.push_back(token);
        loads[experts[i]].weights.push_back(weights[i]);
      }
    }
    for (std::size_t expert = 0; expert < loads.size(); ++expert) borders[expert].push_back(loads[expert].tokens.size());
  }
  std::vector<ExpertLoad> used;
  std::uint64_t first_row = 0;
  for (std::size_t expert = 0; expert < loads.size(); ++expert) {
    if (loads[expert].tokens.empty()) continue;
    loads[expert].expert = static_cast<std::uint32_t>(expert);
    loads[expert].tiles = make_tiles(borders[expert]);
    loads[expert].first_row = first_row;
    first_row += loads[expert].tokens.size();
    used.push_back(std::move(loads[expert]));
  }
  return used;
}

}  // namespace moeweld::infer
