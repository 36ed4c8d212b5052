#include <algorithm>
#include <cmath>
#include <numeric>

#include "moeweld/base/text.h"
#include "moeweld/formats/json.h"
#include "moeweld/plan/reduction.h"

namespace moeweld::plan {

namespace {

/// Experts of the highest scores, ascending; of equal ones the first.
std::vector<std::uint32_t> best(const std::vector<double>& scores, std::uint32_t first, std::uint32_t end, std::uint32_t count) {
  std::vector<std::uint32_t> experts(end - first);
  std::iota(experts.begin(), experts.end(), first);
  std::stable_sort(experts.begin(), experts.end(), [&](std::uint32_t a, std::uint32_t b) { return scores[a] > scores[b]; });
  experts.resize(count);
  std::sort(experts.begin(), experts.end());
  return experts;
}

std::string names_of_layers(const std::vector<int>& layers) {
  std::string text;
  for (std::size_t i = 0; i < layers.size() && i < 5; ++i) text += (i == 0 ? "" : ", ") + std::to_string(layers[i]);
  return text + (layers.size() > 5 ? ", …" : "");
}

/// Average linkage: `similarity` between clusters is the mean over their pairs, kept up to date by their sizes.
std::vector<std::vector<std::uint32_t>> merge_nearest(const std::vector<double>& similarity, std::size_t num_experts, std::uint32_t first,
                                                      std::uint32_t end, std::uint32_t count) {
  const std::size_t n = end - first;
  std::vector<std::vector<std::uint32_t>> clusters(n);
  std::vector<double> mean(n * n);
  for (std::size_t i = 0; i < n; ++i) {
    clusters[i] = {first + static_cast<std::uint32_t>(i)};
    for (std::size_t j = 0; j < n; ++j) mean[i * n + j] = similarity[(first + i) * num_experts + first + j];
  }
  for (std::size_t left = n; left > count; --left) {
    std::size_t a = n;
    std::size_t b = n;
    for (std::size_t i = 0; i < n; ++i) {
      if (clusters[i].empty()) continue;
      for (std::size_t j = i + 1; j < n; ++j) {
        if (!clusters[j].empty() && (a == n || mean[i * n + j] > mean[a * n + b])) {
          a = i;
          b = j;
        }
      }
    }
    const auto size_a = static_cast<double>(clusters[a].size());
    const auto size_b = static_cast<double>(clusters[b].size());
    for (std::size_t k = 0; k < n; ++k) {
      mean[a * n + k] = mean[k * n + a] = (size_a * mean[a * n + k] + size_b * mean[b * n + k]) / (size_a + size_b);
    }
    clusters[a].insert(clusters[a].end(), clusters[b].begin(), clusters[b].end());
    std::sort(clusters[a].begin(), clusters[a].end());
    clusters[b].clear();
  }
  std::erase_if(clusters, [](const auto& cluster) { return cluster.empty(); });
  return clusters;
}

ExpertGroup weighed(std::vector<std::uint32_t> experts, const std::vector<double>& scores) {
  ExpertGroup group;
  double sum = 0;
  for (const std::uint32_t expert : experts) {
    group.weights.push_back(scores.empty() ? 1.0 : scores[expert]);
    sum += group.weights.back();
  }
  for (double& weight : group.weights) weight = sum > 0 ? weight / sum : 1.0 / static_cast<double>(experts.size());
  group.experts = std::move(experts);
  return group;
}

}  // namespace

ExpertScores parse_scores(const std::string& text, const std::string& path, const MixtureSurvey& survey, bool are_weights) {
  const formats::Json json = formats::parse_json(text, path);
  ProblemList problems;
  const auto problem = [&](std::string message) { problems.add(Problem{ErrorCode::kInvalidInput, std::move(message), path, 0, {}}); };
  if (!json.is_object())
    throw Error(ErrorCode::kInvalidInput, "must be a JSON object of layers: {\"0\": [a score for each expert], \"1\": […]}", path);
  ExpertScores scores;
  std::vector<int> missing;
  std::size_t num_known = 0;
  for (const MixtureSurvey::Layer& layer : survey.layers) {
    const auto found = json.find(std::to_string(layer.layer));
    if (found == json.end()) {
      missing.push_back(layer.layer);
      continue;
    }
    ++num_known;
    const std::string where = "layer " + std::to_string(layer.layer);
    if (!found->is_array() || found->size() != survey.num_experts) {
      problem(where + " has " + (found->is_array() ? std::to_string(found->size()) + " scores" : "no list of scores") + ", and '" +
              survey.model + "' has " + std::to_string(survey.num_experts) + " experts");
      continue;
    }
    std::vector<double>& own = scores[layer.layer];
    for (const formats::Json& score : *found) {
      if (!score.is_number() || !std::isfinite(score.get<double>())) {
        problem(where + ": '" + printable(score.dump(), 40) + "' is no number");
        break;
      }
      own.push_back(score.get<double>());
      if (!are_weights || own.back() >= 0) continue;
      problem(where + ": " + printable(score.dump(), 40) +
              " cannot weigh an expert in a mean, which --by cluster takes; weights are at least 0");
      break;
    }
  }
  if (!missing.empty()) problem("has no scores for layer " + names_of_layers(missing) + ", which has experts");
  if (num_known < json.size()) {
    for (const auto& item : json.items()) {
      const bool known = std::any_of(survey.layers.begin(), survey.layers.end(),
                                     [&](const MixtureSurvey::Layer& layer) { return std::to_string(layer.layer) == item.key(); });
      if (known) continue;
      problem("'" + printable(item.key(), 40) + "' is no layer with experts of '" + survey.model + "'");
      break;
    }
  }
  problems.throw_if_any();
  return scores;
}

Reduction prune(const MixtureSurvey& survey, const ExpertScores& scores, std::uint32_t num_experts) {
  Reduction reduction;
  const std::uint32_t old_size = survey.num_experts / survey.num_groups;
  for (const MixtureSurvey::Layer& layer : survey.layers) {
    std::vector<ExpertGroup>& experts = reduction[layer.layer];
    for (std::uint32_t group = 0; group < survey.num_groups; ++group) {
      for (const std::uint32_t expert :
           best(scores.at(layer.layer), group * old_size, (group + 1) * old_size, num_experts / survey.num_groups)) {
        experts.push_back({.experts = {expert}, .weights = {1.0}});
      }
    }
  }
  return reduction;
}

Reduction cluster(const MixtureSurvey& survey, const ExpertSimilarities& similarities, const ExpertScores& scores,
                  std::uint32_t num_experts) {
  Reduction reduction;
  const std::uint32_t old_size = survey.num_experts / survey.num_groups;
  for (const MixtureSurvey::Layer& layer : survey.layers) {
    const auto weights = scores.find(layer.layer);
    for (std::uint32_t group = 0; group < survey.num_groups; ++group) {
      for (std::vector<std::uint32_t>& experts : merge_nearest(similarities.at(layer.layer), survey.num_experts, group * old_size,
                                                               (group + 1) * old_size, num_experts / survey.num_groups)) {
        reduction[layer.layer].push_back(weighed(std::move(experts), weights == scores.end() ? std::vector<double>{} : weights->second));
      }
    }
  }
  return reduction;
}

}  // namespace moeweld::plan
