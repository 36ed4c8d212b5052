#include "plan/addition_planner.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "moeweld/base/random.h"
#include "moeweld/merge/method.h"
#include "plan/added_experts.h"
#include "plan/assembly_checks.h"
#include "plan/assembly_recipe.h"
#include "plan/auxiliary_files.h"
#include "plan/expert_operations.h"
#include "plan/mixture_tensors.h"
#include "plan/router_slots.h"
#include "plan/source_views.h"

namespace moeweld::plan {

namespace {

using config::MoeConfig;
using model::CatalogEntry;
using model::TensorKey;

/// Existing experts keep their order. Where routing is grouped, a group's experts are neighbours, so the new ones stand at the end of each
/// group in equal numbers; else at the end of all.
class AdditionPlanner final : public RoutedExperts {
 public:
  AdditionPlanner(const config::ConfigFile& file, const MoeConfig& config, ModelSource& models, const PlanOptions& options)
      : file_(file), config_(config), models_(models), options_(options) {}

  MergePlan run() {
    read_models();
    check_keys();
    problems_.throw_if_any();
    experts_ = expand_experts(config_, *inputs_);
    groups_ = num_routing_groups(base());
    check_added_experts(file_, config_, *inputs_, experts_, options_, problems_, plan_);
    check_routing(base(), num_experts(), wanted_per_token(), file_.path,
                  config_.line_of(config_.lines.contains("experts_per_token") ? "experts_per_token" : "experts"), ErrorCode::kInvalidConfig,
                  problems_);
    problems_.throw_if_any();

    whole_.emplace(*inputs_, problems_);
    problems_.throw_if_any();
    inputs_->list_files(std::vector<bool>(inputs_->all().size(), true), plan_);
    std::vector<LogicalTensor> tensors = plan_mixture(base(), *whole_, config_.dtype, *this);
    problems_.throw_if_any();
    lay_out(arrange(std::move(tensors), base().catalog.family, layout()), options_, plan_);
    describe();
    problems_.throw_if_any();
    return std::move(plan_);
  }

  std::uint32_t num_experts() const override { return old_experts() + static_cast<std::uint32_t>(experts_.size()); }

  Operation matrix(const TensorKey& key, const std::string& name) override {
    const auto [old, added] = origin(static_cast<std::uint32_t>(key.expert));
    if (added < 0) {
      const CatalogEntry& entry = base().catalog.entries.at({key.layer, static_cast<int>(old), key.role});
      return copy_operation(name, base(), entry, kept_dtype(entry, config_.dtype));
    }
    const CatalogEntry& like = base().catalog.entries.at({key.layer, 0, key.role});
    const std::uint64_t neuron_set = static_cast<std::uint64_t>(key.layer) * experts_.size() + static_cast<std::uint64_t>(added);
    return expert_operation(name, *matrix_of(key.role), std::span(&experts_[static_cast<std::size_t>(added)], 1), *inputs_, key.layer,
                            kept_dtype(like, config_.dtype), neuron_set, options_.seed);
  }

  std::vector<Operation> rows(const MatchedTensor& tensor) override {
    const CatalogEntry& entry = *tensor.inputs.front();
    const DType dtype = kept_dtype(entry, config_.dtype);
    const std::uint32_t old = old_experts() / groups_;
    const std::uint32_t added = num_added() / groups_;
    std::vector<Operation> parts;
    for (std::uint32_t group = 0; group < groups_; ++group) {
      parts.push_back(copy_rows(tensor.name, base(), entry, std::uint64_t{group} * old, old, dtype));
      if (tensor.key.role == "router") {
        parts.push_back(new_rows(tensor, std::uint64_t{group} * added, added, dtype));
      } else {
        for (std::uint32_t i = 0; i < added; ++i) parts.push_back(mean_bias(tensor.name, entry, std::uint64_t{group} * old, old, dtype));
      }
    }
    return parts;
  }

 private:
  const InputModel& base() const { return (*inputs_)[0]; }
  std::uint32_t old_experts() const { return static_cast<std::uint32_t>(base().catalog.num_experts); }
  std::uint32_t num_added() const { return static_cast<std::uint32_t>(experts_.size()); }
  std::uint32_t wanted_per_token() const {
    return config_.lines.contains("experts_per_token") ? config_.experts_per_token : experts_per_token(base());
  }
  model::Layout layout() const {
    const config::Layout wanted = options_.layout.value_or(config_.layout.value_or(config::Layout::kPerExpert));
    return wanted == config::Layout::kFused ? model::Layout::kFused : model::Layout::kPerExpert;
  }

  void read_models() {
    std::vector<config::ModelReference> references = {config_.base_model};
    for (const config::Expert& expert : config_.experts) references.push_back(expert.source_model);
    const InputModels::Places places{file_.path, [&](const config::ModelReference& model) { return config_.line_of_model(model); }};
    inputs_.emplace(references, models_, problems_, places);
    problems_.throw_if_any();
  }

  /// What decides an assembly is decided here: by the base.
  void check_keys() {
    const auto refuse = [&](const char* key, const std::string& why) {
      if (!config_.lines.contains(key)) return;
      problems_.add(Problem{ErrorCode::kInvalidConfig,
                            "'" + std::string(key) + "' has no place where experts are added to a mixture: " + why,
                            file_.path,
                            config_.line_of(key),
                            {}});
    };
    const std::string has = "'" + base().label + "' has its own";
    refuse("recipe", "recipes make one of dense models; list the 'experts'");
    refuse("moe_layers", has + " layers with experts");
    if (config_.rope != config::RopeChoice::kKeep) refuse("rope", has + ", which stays");
    if (!config_.shared_experts.empty()) refuse("shared_experts", "those of '" + base().label + "', if there are any, stay as they are");
    if (config_.architecture && *config_.architecture != base().catalog.family->name) {
      refuse("architecture", "'" + base().label + "' is " + base().architecture + ", and so is the result");
    }
  }

  /// Which existing expert stands at `index` of the output, or, where that is negative below, which new one.
  std::pair<std::uint32_t, int> origin(std::uint32_t index) const {
    const std::uint32_t old = old_experts() / groups_;
    const std::uint32_t added = num_added() / groups_;
    const std::uint32_t group = index / (old + added);
    const std::uint32_t place = index % (old + added);
    if (place < old) return {group * old + place, -1};
    return {0, static_cast<int>(group * added + place - old)};
  }

  Operation new_rows(const MatchedTensor& tensor, std::uint64_t first_row, std::uint64_t num_rows, DType dtype) {
    const std::uint64_t hidden = tensor.inputs.front()->shape.at(1);
    Operation operation;
    operation.name = tensor.name;
    operation.task.shape = {num_rows, hidden};
    operation.task.output_dtype = dtype;
    if (fills_slot(config_.gate_mode)) {
      const RouterRows rows{file_, config_, base(), base().catalog.sparse_layers, num_added(), false};
      take_slot_rows(rows, models_.storage(), tensor.key.layer, first_row, operation, problems_, plan_);
    } else {
      fill_with_random_rows(config_.gate_mode, hidden, operation);
      operation.fill.first_index = first_row * hidden;
    }
    return operation;
  }

  /// Neutral among the experts of its group: neither preferred nor left out.
  Operation mean_bias(const std::string& name, const CatalogEntry& entry, std::uint64_t first, std::uint64_t count, DType dtype) const {
    std::vector<SourceView> views;
    for (std::uint64_t i = first; i < first + count; ++i) {
      SourceView view = bytes_of(base(), entry);
      view.columns = 1;
      views.push_back(slice_rows(std::move(view), i, 1));
    }
    return weighted_mean(name, std::move(views), std::vector<double>(count, 1.0), {1}, dtype, options_.seed);
  }

  void drop_the_rest() {
    for (DroppedTensor& tensor : whole_->matching.dropped) {
      if (tensor.model == base().label) plan_.dropped.push_back(std::move(tensor));
    }
    for (std::size_t i = 1; i < inputs_->all().size(); ++i) {
      const InputModel& input = (*inputs_)[i];
      for (const auto& [name, reason] : input.catalog.dropped) {
        const formats::CheckpointTensor* tensor = input.checkpoint->find(name);
        plan_.dropped.push_back({input.label, name, tensor == nullptr ? 0 : num_elements(tensor->shape), reason});
      }
      for (const auto& [key, entry] : input.catalog.entries) {
        const bool in_sparse_layer = key.layer >= 0 && static_cast<std::size_t>(key.layer) < base().catalog.sparse_layers.size() &&
                                     base().catalog.sparse_layers[static_cast<std::size_t>(key.layer)];
        const bool used = in_sparse_layer && std::any_of(experts_.begin(), experts_.end(), [&](const ExpertSource& expert) {
                            return expert.model == i && gives(expert, key);
                          });
        if (used) continue;
        plan_.dropped.push_back(
            {input.label, model::tensor_name(input.catalog.family, key), num_elements(entry.shape), "experts give only their FFN"});
      }
    }
  }

  static bool gives(const ExpertSource& expert, const TensorKey& key) {
    for (const FfnMatrix matrix : {FfnMatrix::kGate, FfnMatrix::kUp, FfnMatrix::kDown}) {
      if (source_key(expert, matrix, key.layer) == key) return true;
    }
    return false;
  }

  void describe() {
    const std::string total = std::to_string(num_experts());
    plan_.title = short_name(config_.base_model) + " with " + std::to_string(num_added()) + (num_added() == 1 ? " expert" : " experts") +
                  " added to its " + std::to_string(old_experts());
    plan_.config_path = file_.path;
    plan_.config_text = file_.text;
    plan_.seed = options_.seed;
    for (const InputModel& input : inputs_->all()) plan_.base_models.push_back(input.label);
    drop_the_rest();
    plan_.composition.push_back("everything but the new experts and their router rows: " + base().label);
    for (std::uint32_t index = 0; index < num_experts(); ++index) {
      const int added = origin(index).second;
      if (added < 0) continue;
      const ExpertSource& expert = experts_[static_cast<std::size_t>(added)];
      plan_.composition.push_back("expert " + std::to_string(index) + ": " + description_of(expert, (*inputs_)[expert.model]));
    }
    const bool has_prompts = config::needs_prompts(config_.gate_mode);
    plan_.composition.push_back("new router rows: " + config::name_of(config_.gate_mode) +
                                (has_prompts ? ", from the experts' prompts and " + base().label : ", to be trained"));
    if (model::find_row(*base().catalog.family, "router_correction_bias") != nullptr)
      plan_.composition.push_back(
          "new entries of the correction bias: the mean of those that are there, of the routing group where there are such");
    plan_.notes.push_back("new router rows are as long as gate_mode makes them, not fitted to those of '" + base().label + "'");
    for (const std::string& note : base().checkpoint->notes) plan_.notes.push_back(base().label + ": " + note);

    const auto embedding = base().catalog.entries.find({-1, -1, "token_embedding"});
    const DType own = embedding == base().catalog.entries.end() ? DType::kBF16 : embedding->second.dtype;
    const formats::Json config =
        mixture_config(base(), *whole_, config_.dtype.value_or(own), num_experts(), wanted_per_token(), plan_.notes);
    plan_.auxiliary_files = auxiliary_files(*base().checkpoint, *base().checkpoint, options_);
    problems_.attempt([&] { note_tokenizer_class(models_.storage(), plan_.auxiliary_files, plan_.notes); });
    plan_.auxiliary_files.push_back(
        {.action = AuxiliaryFile::Action::kWrite, .name = "config.json", .content = config.dump(2) + "\n", .source = {}, .reason = {}});
  }

  const config::ConfigFile& file_;
  const MoeConfig& config_;
  ModelSource& models_;
  const PlanOptions& options_;
  ProblemList problems_;
  std::optional<InputModels> inputs_;
  std::optional<WholeMixture> whole_;
  std::vector<ExpertSource> experts_;
  std::uint32_t groups_ = 1;
  MergePlan plan_;
};

}  // namespace

bool adds_to_mixture(const MoeConfig& config, ModelSource& models) {
  try {
    const formats::Checkpoint& base = models.get(config.base_model);
    const model::Family* family = model::find_family(config.base_model.override_architecture.value_or(base.architecture()));
    return family != nullptr && !family->num_experts_keys.empty();
  } catch (const Error&) {
    return false;  // said where all models are read
  }
}

MergePlan plan_addition(const config::ConfigFile& file, const MoeConfig& config, ModelSource& models, const PlanOptions& options) {
  return AdditionPlanner(file, config, models, options).run();
}

}  // namespace moeweld::plan
