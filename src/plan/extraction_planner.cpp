#include <algorithm>
#include <limits>

#include "moeweld/base/text.h"
#include "moeweld/merge/method.h"
#include "moeweld/model/extracted_config.h"
#include "moeweld/model/model_config.h"
#include "plan/auxiliary_files.h"
#include "plan/expert_layout.h"
#include "plan/input_models.h"

namespace moeweld::plan {

namespace {

using model::TensorKey;

void check_experts(const InputModel& input, const std::vector<int>& experts, int num_layers) {
  ProblemList problems;
  if (experts.size() != 1 && experts.size() != static_cast<std::size_t>(num_layers)) {
    problems.add(Problem{ErrorCode::kUsage,
                         "--expert takes one index, or one for each of the " + std::to_string(num_layers) + " layers; " +
                             std::to_string(experts.size()) + " are given",
                         {},
                         0,
                         {}});
  }
  for (const int expert : experts) {
    if (expert >= 0 && expert < input.catalog.num_experts) continue;
    problems.add(Problem{ErrorCode::kUsage,
                         "there is no expert " + std::to_string(expert) + ": '" + input.label + "' has experts 0 to " +
                             std::to_string(input.catalog.num_experts - 1),
                         {},
                         0,
                         {}});
    break;
  }
  problems.throw_if_any();
}

}  // namespace

MergePlan make_extraction_plan(const config::ModelReference& reference, const std::vector<int>& experts, ModelSource& models,
                               const PlanOptions& options) {
  ProblemList problems;
  InputModels inputs({reference}, models, problems);
  problems.throw_if_any();
  const InputModel& input = inputs[0];
  if (input.catalog.family == nullptr || input.catalog.family->name != "mixtral") {
    throw Error(ErrorCode::kUnsupported,
                "is " + (input.architecture.empty() ? std::string("of an unnamed architecture") : input.architecture) +
                    "; experts are extracted from a Mixtral, other families come with a later version",
                input.checkpoint->directory);
  }
  const int num_layers = input.catalog.num_layers.at("model");
  check_experts(input, experts, num_layers);

  MergePlan plan;
  inputs.list_files({true}, plan);
  const model::Family& mistral = *model::find_family("MistralForCausalLM");
  std::vector<LogicalTensor> tensors;
  const auto take = [&](const model::CatalogEntry& entry, TensorKey key) {
    Operation operation;
    operation.kind = Operation::Kind::kCopy;
    operation.name = model::tensor_name(&mistral, key);
    operation.task.shape = entry.shape;
    operation.task.output_dtype = entry.dtype;
    operation.task.inputs = {{entry.dtype, {std::numeric_limits<double>::quiet_NaN()}}};
    operation.sources = {{.dtype = entry.dtype,
                          .file = inputs[0].first_file + entry.file,
                          .begin = entry.begin,
                          .num_elements = num_elements(entry.shape),
                          .children = {}}};
    tensors.push_back({std::move(key), std::move(operation)});
  };
  for (const model::Place place : {model::Place::kBeforeLayers, model::Place::kLayer, model::Place::kAfterLayers}) {
    const int layers = place == model::Place::kLayer ? num_layers : 1;
    for (int layer = 0; layer < layers; ++layer) {
      for (const model::TensorRow& row : mistral.tensors) {
        if (row.place != place) continue;
        TensorKey key{place == model::Place::kLayer ? layer : -1, -1, std::string(row.role)};
        TensorKey source = key;
        if (key.role.starts_with("mlp_"))
          source = {layer, experts[experts.size() == 1 ? 0 : static_cast<std::size_t>(layer)], "expert_" + key.role.substr(4)};
        const auto found = input.catalog.entries.find(source);
        if (found != input.catalog.entries.end()) take(found->second, std::move(key));
      }
    }
  }
  for (const auto& [name, reason] : input.catalog.dropped) plan.dropped.push_back({input.label, name, 0, reason});
  for (const auto& [key, entry] : input.catalog.entries) {
    const std::string name = model::tensor_name(input.catalog.family, key);
    if (key.role == "router") {
      plan.dropped.push_back({input.label, name, num_elements(entry.shape), "a dense model has no router"});
    } else if (key.expert >= 0) {
      if (key.expert != experts[experts.size() == 1 ? 0 : static_cast<std::size_t>(key.layer)])
        plan.dropped.push_back({input.label, name, num_elements(entry.shape), "another expert"});
    } else if (std::none_of(mistral.tensors.begin(), mistral.tensors.end(),
                            [&](const model::TensorRow& row) { return row.role == key.role; })) {
      problems.add(Problem{ErrorCode::kUnsupported, "has no place in a Mistral", input.checkpoint->directory, 0, name});
    }
  }
  problems.throw_if_any();

  lay_out(arrange(std::move(tensors), &mistral, model::Layout::kPerExpert), options, plan);
  std::string which;
  for (const int expert : experts) which += (which.empty() ? "" : ",") + std::to_string(expert);
  plan.title = "expert " + which + " of " + short_name(reference);
  plan.config_text = "# moeweld extract " + reference.to_string() + " --expert " + which + "\n";
  plan.seed = options.seed;
  plan.base_models = {input.label};
  plan.notes.push_back(
      "an expert pulled out of a jointly trained mixture is not a usable model by itself; one that was assembled from dense models comes "
      "back");
  const std::uint64_t width = input.catalog.entries.at({0, experts.front(), "expert_gate_proj"}).shape.front();
  formats::Json config = model::extracted_config(*input.catalog.family, input.checkpoint->config, width, plan.notes);
  config["tie_word_embeddings"] = !input.catalog.entries.contains({-1, -1, "lm_head"});
  plan.auxiliary_files = auxiliary_files(*input.checkpoint, *input.checkpoint, options);
  plan.auxiliary_files.push_back(
      {.action = AuxiliaryFile::Action::kWrite, .name = "config.json", .content = config.dump(2) + "\n", .source = {}, .reason = {}});
  return plan;
}

}  // namespace moeweld::plan
