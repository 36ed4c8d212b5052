#include "plan/assembly_recipe.h"

#include <algorithm>
#include <cmath>

namespace moeweld::plan {

namespace {

using config::Expert;
using config::MoeConfig;
using config::RecipeKind;

ExpertSource source_of(const Expert& expert, const InputModels& inputs) {
  return {.model = inputs.index_of(expert.source_model),
          .indices = expert.expert,
          .noise_scale = expert.noise_scale.value_or(0.0),
          .residual_scale = expert.residual_scale.value_or(1.0),
          .line = expert.line};
}

std::vector<ExpertSource> whole_experts(const MoeConfig& config, const InputModels& inputs) {
  std::vector<ExpertSource> result;
  for (const Expert& expert : config.experts) result.push_back(source_of(expert, inputs));
  if (result.empty()) {
    result.assign(config.recipe.copies, {.model = inputs.index_of(config.base_model), .line = config.line_of("recipe")});
  }
  return result;
}

}  // namespace

std::vector<ExpertSource> expand_experts(const MoeConfig& config, const InputModels& inputs) {
  std::vector<ExpertSource> result;
  for (ExpertSource expert : whole_experts(config, inputs)) {
    if (config.recipe.kind == RecipeKind::kDropUpcycle) expert.redrawn_ratio = config.recipe.ratio;
    if (config.recipe.kind == RecipeKind::kFineGrained) {
      const double scale = config.recipe.shards;
      expert.num_shards = config.recipe.shards;
      (config.recipe.published_scaling ? expert.matrix_scale : expert.down_scale) =
          config.recipe.published_scaling ? std::cbrt(scale) : scale;
    }
    for (std::uint64_t shard = 0; shard < expert.num_shards; ++shard) {
      expert.shard = shard;
      result.push_back(expert);
    }
  }
  return result;
}

std::vector<ExpertSource> expand_shared_experts(const MoeConfig& config, const InputModels& inputs) {
  std::vector<ExpertSource> result;
  for (const Expert& expert : config.shared_experts) result.push_back(source_of(expert, inputs));
  return result;
}

std::vector<bool> choose_sparse_layers(const MoeConfig& config, int num_layers, const std::string& config_path, ProblemList& problems) {
  using Kind = config::MoeLayers::Kind;
  const config::MoeLayers& wanted = config.moe_layers;
  const auto count = static_cast<std::uint64_t>(std::max(0, num_layers));
  std::vector<bool> result(count, wanted.kind == Kind::kAll);
  if (wanted.kind == Kind::kAll) return result;
  if (wanted.kind == Kind::kEvery) {
    for (std::uint64_t layer = wanted.first; layer < count; layer += wanted.every) result[layer] = true;
  }
  std::string beyond;
  for (const std::uint32_t layer : wanted.list) {
    if (layer < count) {
      result[layer] = true;
    } else {
      beyond += (beyond.empty() ? "" : ", ") + std::to_string(layer);
    }
  }
  const auto problem = [&](std::string message) {
    problems.add(Problem{ErrorCode::kInvalidConfig, std::move(message), config_path, config.line_of("moe_layers"), {}});
  };
  if (!beyond.empty())
    problem("moe_layers names layer " + beyond + ", and the base has layers 0 to " + std::to_string(num_layers - 1));
  else if (std::find(result.begin(), result.end(), true) == result.end())
    problem("moe_layers leaves no layer with experts: the first would be " + std::to_string(wanted.first) +
            ", and the base has layers 0 to " + std::to_string(num_layers - 1));
  return result;
}

}  // namespace moeweld::plan
