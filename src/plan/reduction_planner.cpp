#include <algorithm>

#include "moeweld/base/text.h"
#include "moeweld/plan/reduction.h"
#include "plan/auxiliary_files.h"
#include "plan/expert_operations.h"
#include "plan/mixture_tensors.h"
#include "plan/source_archive.h"
#include "plan/source_views.h"

namespace moeweld::plan {

template <class Archive>
void serialize(Archive& archive, MixtureSurvey::Layer& value) {
  archive(value.layer, value.router_name, value.router, value.experts);
}
template <class Archive>
void serialize(Archive& archive, MixtureSurvey& value) {
  archive(value.model, value.input_files, value.layers, value.num_experts, value.num_groups);
}

namespace {

using model::CatalogEntry;
using model::TensorKey;

/// "0-2, 5": experts in ascending order.
std::string ranges(const std::vector<std::uint32_t>& experts) {
  std::string text;
  for (std::size_t i = 0; i < experts.size();) {
    std::size_t end = i + 1;
    while (end < experts.size() && experts[end] == experts[end - 1] + 1) ++end;
    text += (text.empty() ? "" : ", ") + std::to_string(experts[i]);
    if (end - i > 1) text += (end - i == 2 ? ", " : "-") + std::to_string(experts[end - 1]);
    i = end;
  }
  return text;
}

const InputModel& read_mixture(const InputModels& inputs) {
  const InputModel& input = inputs[0];
  if (input.catalog.family == nullptr || input.catalog.num_experts == 0) {
    throw Error(ErrorCode::kUnsupported,
                "is " + (input.architecture.empty() ? std::string("of an unnamed architecture") : input.architecture) +
                    "; only a mixture of experts of a known family has experts to take away",
                input.checkpoint->directory);
  }
  return input;
}

/// Rows of a router and experts of a mixture, as a reduction has them.
class ReducedExperts final : public RoutedExperts {
 public:
  ReducedExperts(const InputModel& mixture, const Reduction& reduction, std::uint32_t num_experts, std::uint64_t seed)
      : mixture_(mixture), reduction_(reduction), num_experts_(num_experts), seed_(seed) {}

  std::uint32_t num_experts() const override { return num_experts_; }

  Operation matrix(const TensorKey& key, const std::string& name) override {
    const ExpertGroup& group = groups(key.layer).at(static_cast<std::size_t>(key.expert));
    std::vector<SourceView> views;
    const CatalogEntry* first = nullptr;
    for (const std::uint32_t expert : group.experts) {
      const CatalogEntry& entry = mixture_.catalog.entries.at({key.layer, static_cast<int>(expert), key.role});
      if (first == nullptr) first = &entry;
      views.push_back(bytes_of(mixture_, entry));
    }
    return mean(name, group, std::move(views), first->shape, kept_dtype(*first, std::nullopt));
  }

  std::vector<Operation> rows(const MatchedTensor& tensor) override {
    const CatalogEntry& entry = *tensor.inputs.front();
    const DType dtype = kept_dtype(entry, std::nullopt);
    std::vector<Operation> parts;
    const std::vector<ExpertGroup>& all = groups(tensor.key.layer);
    for (std::size_t i = 0; i < all.size();) {
      if (all[i].experts.size() == 1) {
        // Neighbours are one run of bytes.
        std::size_t end = i + 1;
        while (end < all.size() && all[end].experts.size() == 1 && all[end].experts[0] == all[end - 1].experts[0] + 1) ++end;
        parts.push_back(copy_rows(tensor.name, mixture_, entry, all[i].experts[0], end - i, dtype));
        i = end;
        continue;
      }
      std::vector<SourceView> views;
      Shape shape = entry.shape;
      shape.at(0) = 1;
      for (const std::uint32_t expert : all[i].experts) {
        SourceView view = bytes_of(mixture_, entry);
        if (entry.shape.size() == 1) view.columns = 1;
        views.push_back(slice_rows(std::move(view), expert, 1));
      }
      parts.push_back(mean(tensor.name, all[i], std::move(views), shape, dtype));
      ++i;
    }
    return parts;
  }

 private:
  const std::vector<ExpertGroup>& groups(int layer) const { return reduction_.at(layer); }

  Operation mean(const std::string& name, const ExpertGroup& group, std::vector<SourceView> views, const Shape& shape, DType dtype) const {
    return weighted_mean(name, std::move(views), group.weights, shape, dtype, seed_);
  }

  const InputModel& mixture_;
  const Reduction& reduction_;
  const std::uint32_t num_experts_;
  const std::uint64_t seed_;
};

std::string description(const ReductionRequest& request) {
  const std::string scores = printable(request.scores, 200);
  if (request.by == ReductionRequest::By::kCluster)
    return "clusters of experts with similar weights, their means weighed " + (scores.empty() ? std::string("alike") : "by " + scores);
  return scores.empty() ? "the experts of the lowest router-row norms go" : "the experts of the lowest scores in " + scores + " go";
}

std::string layer_line(int layer, const std::vector<ExpertGroup>& groups, std::uint32_t num_experts) {
  std::vector<std::uint32_t> kept;
  std::vector<bool> used(num_experts, false);
  std::string merged;
  for (const ExpertGroup& group : groups) {
    for (const std::uint32_t expert : group.experts) used[expert] = true;
    if (group.experts.size() == 1) {
      kept.push_back(group.experts[0]);
      continue;
    }
    merged += merged.empty() ? "; merged" : ",";
    for (std::size_t i = 0; i < group.experts.size(); ++i) {
      merged += (i == 0 ? " " : " + ") + std::to_string(group.experts[i]);
      const bool alike = std::all_of(group.weights.begin(), group.weights.end(), [&](double weight) { return weight == group.weights[0]; });
      if (!alike) merged += " (" + formats::Json(group.weights[i]).dump() + ")";
    }
  }
  std::vector<std::uint32_t> gone;
  for (std::uint32_t expert = 0; expert < num_experts; ++expert) {
    if (!used[expert]) gone.push_back(expert);
  }
  std::string text = "layer " + std::to_string(layer) + ": ";
  text += kept.empty() ? merged.substr(2) : "experts " + ranges(kept) + " kept" + merged;
  if (!gone.empty()) text += "; " + ranges(gone) + " dropped";
  return text;
}

void drop_experts(const InputModel& mixture, const Reduction& reduction, MergePlan& plan) {
  for (const auto& [key, entry] : mixture.catalog.entries) {
    if (!is_expert_role(key.role)) continue;
    const std::vector<ExpertGroup>& groups = reduction.at(key.layer);
    const auto expert = static_cast<std::uint32_t>(key.expert);
    const bool used = std::any_of(groups.begin(), groups.end(), [&](const ExpertGroup& group) {
      return std::find(group.experts.begin(), group.experts.end(), expert) != group.experts.end();
    });
    if (!used) {
      plan.dropped.push_back(
          {mixture.label, model::tensor_name(mixture.catalog.family, key), num_elements(entry.shape), "of an expert that is taken away"});
    }
  }
}

std::string command_of(const ReductionRequest& request) {
  std::string text = "# moeweld reduce " + request.model.to_string() + " --experts " + std::to_string(request.num_experts) + " --by " +
                     (request.by == ReductionRequest::By::kPrune ? "prune" : "cluster");
  if (!request.scores.empty()) text += " --scores " + request.scores;
  if (request.experts_per_token) text += " --experts-per-token " + std::to_string(*request.experts_per_token);
  return text + "\n";
}

}  // namespace

std::vector<std::byte> encode_survey(const MixtureSurvey& survey) { return to_archive(survey); }
MixtureSurvey decode_survey(std::span<const std::byte> bytes) { return from_archive<MixtureSurvey>(bytes); }

MixtureSurvey survey_mixture(const ReductionRequest& request, ModelSource& models) {
  ProblemList problems;
  InputModels inputs({request.model}, models, problems);
  problems.throw_if_any();
  const InputModel& mixture = read_mixture(inputs);
  MixtureSurvey survey;
  survey.model = mixture.label;
  survey.num_experts = static_cast<std::uint32_t>(mixture.catalog.num_experts);
  survey.num_groups = num_routing_groups(mixture);
  if (request.num_experts > survey.num_experts) {
    problems.add(Problem{ErrorCode::kUsage,
                         "--experts " + std::to_string(request.num_experts) + ": '" + mixture.label + "' has only " +
                             std::to_string(survey.num_experts) + " experts",
                         {},
                         0,
                         {}});
  } else {
    check_routing(mixture, request.num_experts, request.experts_per_token.value_or(experts_per_token(mixture)), {}, 0, ErrorCode::kUsage,
                  problems);
  }
  problems.throw_if_any();

  MergePlan plan;
  inputs.list_files({true}, plan);
  survey.input_files = std::move(plan.input_files);
  for (const auto& [key, entry] : mixture.catalog.entries) {
    if (key.role != "router") continue;
    MixtureSurvey::Layer layer;
    layer.layer = key.layer;
    layer.router_name = model::tensor_name(mixture.catalog.family, key);
    layer.router = bytes_of(mixture, entry);
    for (int expert = 0; expert < mixture.catalog.num_experts; ++expert) {
      for (const char* role : {"expert_gate_proj", "expert_up_proj", "expert_down_proj"})
        layer.experts.push_back(bytes_of(mixture, mixture.catalog.entries.at({key.layer, expert, role})));
    }
    survey.layers.push_back(std::move(layer));
  }
  std::sort(survey.layers.begin(), survey.layers.end(), [](const auto& a, const auto& b) { return a.layer < b.layer; });
  return survey;
}

MergePlan make_reduction_plan(const ReductionRequest& request, const Reduction& reduction, ModelSource& models,
                              const PlanOptions& options) {
  ProblemList problems;
  InputModels inputs({request.model}, models, problems);
  problems.throw_if_any();
  const InputModel& mixture = read_mixture(inputs);
  const WholeMixture whole(inputs, problems);
  problems.throw_if_any();

  MergePlan plan;
  inputs.list_files({true}, plan);
  const auto num_experts = static_cast<std::uint32_t>(mixture.catalog.num_experts);
  ReducedExperts experts(mixture, reduction, request.num_experts, options.seed);
  const bool fused = options.layout == config::Layout::kFused;
  lay_out(arrange(plan_mixture(mixture, whole, std::nullopt, experts), mixture.catalog.family,
                  fused ? model::Layout::kFused : model::Layout::kPerExpert),
          options, plan);
  plan.dropped = whole.matching.dropped;
  drop_experts(mixture, reduction, plan);

  plan.title = short_name(request.model) + " reduced from " + std::to_string(num_experts) + " to " + std::to_string(request.num_experts) +
               " experts";
  plan.config_text = command_of(request);
  plan.seed = options.seed;
  plan.base_models = {mixture.label};
  plan.composition.push_back("everything but the experts and their router rows: " + mixture.label);
  plan.composition.push_back(description(request));
  for (const auto& [layer, groups] : reduction) plan.composition.push_back(layer_line(layer, groups, num_experts));
  for (const std::string& note : mixture.checkpoint->notes) plan.notes.push_back(mixture.label + ": " + note);

  const auto embedding = mixture.catalog.entries.find({-1, -1, "token_embedding"});
  const DType dtype = embedding == mixture.catalog.entries.end() ? DType::kBF16 : embedding->second.dtype;
  const formats::Json config = mixture_config(mixture, whole, dtype, request.num_experts,
                                              request.experts_per_token.value_or(experts_per_token(mixture)), plan.notes);
  plan.auxiliary_files = auxiliary_files(*mixture.checkpoint, *mixture.checkpoint, options);
  problems.attempt([&] { note_tokenizer_class(models.storage(), plan.auxiliary_files, plan.notes); });
  problems.throw_if_any();
  plan.auxiliary_files.push_back(
      {.action = AuxiliaryFile::Action::kWrite, .name = "config.json", .content = config.dump(2) + "\n", .source = {}, .reason = {}});
  return plan;
}

}  // namespace moeweld::plan
