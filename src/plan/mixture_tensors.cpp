#include "plan/mixture_tensors.h"

#include <algorithm>
#include <climits>
#include <utility>

#include "moeweld/model/model_config.h"
#include "plan/expert_operations.h"
#include "plan/output_config.h"
#include "plan/source_views.h"

namespace moeweld::plan {

namespace {

using model::CatalogEntry;
using model::TensorKey;

/// A whole number of config.json that is at least 1; 0 where there is none.
std::uint32_t count_field(const formats::Json& config, const char* key) {
  const auto found = config.find(key);
  if (found == config.end() || !found->is_number_integer()) return 0;
  const auto value = found->get<std::int64_t>();
  return value < 1 || value > INT32_MAX ? 0 : static_cast<std::uint32_t>(value);
}

bool has_correction(const InputModel& mixture) { return model::find_row(*mixture.catalog.family, "router_correction_bias") != nullptr; }

}  // namespace

WholeMixture::WholeMixture(const InputModels& inputs, ProblemList& problems) {
  Slice slice;
  slice.sources = {{.model = 0, .first_layer = 0, .parameters = nullptr, .line = 0}};
  slice.whole_model = true;
  Module module;
  module.name = "default";
  module.slices.push_back(std::move(slice));
  modules.push_back(std::move(module));
  matching = match_tensors(modules, inputs, true, config::MtpMode::kMerge, {}, problems);
  for (const MatchedTensor& tensor : matching.tensors) {
    if (tensor.key.expert < 0 || is_expert_role(tensor.key.role)) continue;
    problems.add(Problem{ErrorCode::kUnsupported,
                         "is a part of an expert that the table of its family does not know, so experts cannot be added or taken away",
                         inputs[0].checkpoint->directory, 0, tensor.name});
    break;
  }
}

bool is_expert_role(std::string_view role) { return role.starts_with("expert_"); }

std::uint64_t expert_width(const InputModel& mixture) {
  for (const auto& [key, entry] : mixture.catalog.entries) {
    if (key.role == "expert_gate_proj") return entry.shape.at(0);
  }
  return 0;
}

std::uint32_t num_routing_groups(const InputModel& mixture) {
  const std::string_view family = mixture.catalog.family->name;
  const formats::Json& config = mixture.checkpoint->config;
  if (family == "deepseek_v2" && config.value("topk_method", formats::Json("greedy")) == "greedy") return 1;
  if (family != "deepseek_v2" && family != "deepseek_v3" && family != "glm4_moe") return 1;
  // transformers takes 8 for a DeepSeek-V3 that does not say, 1 for the others.
  const std::uint32_t groups = count_field(config, "n_group");
  return groups != 0 ? groups : family == "deepseek_v3" && !config.contains("n_group") ? 8 : 1;
}

std::uint32_t experts_per_token(const InputModel& mixture) {
  const std::uint32_t own = count_field(mixture.checkpoint->config, "num_experts_per_tok");
  return own != 0 ? own : model::default_experts_per_token(*mixture.catalog.family);
}

void check_routing(const InputModel& mixture, std::uint32_t num_experts, std::uint32_t experts_per_token, const std::string& path, int line,
                   ErrorCode code, ProblemList& problems) {
  const auto problem = [&](std::string message) { problems.add(Problem{code, std::move(message), path, line, {}}); };
  const std::string count = std::to_string(num_experts);
  if (experts_per_token > num_experts) {
    problem("each token takes " + std::to_string(experts_per_token) + " experts, and there would be only " + count +
            "; choose a smaller number of experts per token");
  }
  const std::uint32_t groups = num_routing_groups(mixture);
  if (groups > 1 && num_experts % groups != 0) {
    problem(count + " experts cannot be shared out to the " + std::to_string(groups) + " routing groups (n_group) of '" + mixture.label +
            "'; take a multiple of " + std::to_string(groups));
    return;
  }
  const std::uint32_t in_group = num_experts / groups;
  // Readers score a group by its two best experts.
  if (has_correction(mixture) && num_routing_groups(mixture) > 1 && in_group < 2) {
    problem(count + " experts leave " + std::to_string(in_group) + " in each of the " + std::to_string(groups) +
            " routing groups (n_group) of '" + mixture.label + "', and readers score a group by its two best");
  }
  const std::uint32_t chosen = std::max<std::uint32_t>(1, count_field(mixture.checkpoint->config, "topk_group"));
  if (groups > 1 && experts_per_token <= num_experts && std::uint64_t{chosen} * in_group < experts_per_token) {
    problem("each token takes " + std::to_string(experts_per_token) + " experts out of " + std::to_string(chosen) +
            " routing groups (topk_group), which would have only " + std::to_string(std::uint64_t{chosen} * in_group));
  }
}

DType kept_dtype(const CatalogEntry& entry, std::optional<DType> wanted) {
  if (!is_arithmetic(entry.usual_dtype())) return entry.dtype;
  if (entry.keep_f32) return DType::kF32;
  return wanted.value_or(entry.usual_dtype());
}

Operation copy_rows(const std::string& name, const InputModel& input, const CatalogEntry& entry, std::uint64_t first, std::uint64_t count,
                    DType dtype) {
  SourceView view = bytes_of(input, entry);
  if (entry.shape.size() == 1) view.columns = 1;
  Operation operation = copy_view(name, slice_rows(std::move(view), first, count), dtype);
  operation.task.shape = entry.shape;
  operation.task.shape.at(0) = count;
  return operation;
}

std::vector<LogicalTensor> plan_mixture(const InputModel& mixture, const WholeMixture& whole, std::optional<DType> dtype,
                                        RoutedExperts& experts) {
  const model::Family& family = *mixture.catalog.family;
  std::vector<LogicalTensor> tensors;
  int layer_of_experts = -1;
  for (const MatchedTensor& tensor : whole.matching.tensors) {
    const TensorKey& key = tensor.key;
    if (key.role == "router" || key.role == "router_correction_bias") {
      for (Operation& part : experts.rows(tensor)) tensors.push_back({key, std::move(part)});
    } else if (!is_expert_role(key.role)) {
      const CatalogEntry& entry = *tensor.inputs.front();
      tensors.push_back({key, copy_operation(tensor.name, mixture, entry, kept_dtype(entry, dtype))});
    } else if (std::exchange(layer_of_experts, key.layer) != key.layer) {
      for (std::uint32_t expert = 0; expert < experts.num_experts(); ++expert) {
        for (const model::TensorRow& row : family.tensors) {
          if (!is_expert_role(row.role)) continue;
          const TensorKey own{key.layer, static_cast<int>(expert), std::string(row.role)};
          tensors.push_back({own, experts.matrix(own, model::tensor_name(&family, own))});
        }
      }
    }
  }
  return tensors;
}

formats::Json mixture_config(const InputModel& mixture, const WholeMixture& whole, DType dtype, std::uint32_t num_experts,
                             std::uint32_t experts_per_token, std::vector<std::string>& notes) {
  formats::Json config = output_config(mixture, whole.modules, whole.matching, dtype, std::nullopt, notes);
  const auto& keys = mixture.catalog.family->num_experts_keys;
  for (const std::string_view key : keys) {
    if (key == keys.front() || config.contains(std::string(key))) config[std::string(key)] = num_experts;
  }
  if (experts_per_token != 0) config["num_experts_per_tok"] = experts_per_token;
  return config;
}

}  // namespace moeweld::plan
