#include "plan/moe_planner.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "moeweld/base/text.h"
#include "moeweld/merge/method.h"
#include "moeweld/model/assembled_config.h"
#include "moeweld/model/model_config.h"
#include "plan/addition_planner.h"
#include "plan/assembly_checks.h"
#include "plan/assembly_family.h"
#include "plan/assembly_recipe.h"
#include "plan/attention_merge.h"
#include "plan/auxiliary_files.h"
#include "plan/expert_layout.h"
#include "plan/expert_operations.h"
#include "plan/input_models.h"
#include "plan/mixture_tensors.h"
#include "plan/router_slots.h"

namespace moeweld::plan {

namespace {

using config::MoeConfig;
using config::RecipeKind;
using model::CatalogEntry;
using model::TensorKey;
using model::TensorRow;

bool is_shared_role(std::string_view role) { return role.starts_with("shared_"); }
bool is_dense_ffn(std::string_view role) { return role.starts_with("mlp_"); }

class AssemblyPlanner {
 public:
  AssemblyPlanner(const config::ConfigFile& file, const MoeConfig& config, ModelSource& models, const PlanOptions& options)
      : file_(file), config_(config), models_(models), options_(options) {}

  MergePlan run() {
    read_models();
    sparse_ = choose_sparse_layers(config_, num_layers(), file_.path, problems_);
    family_ = choose_output_family(config_, *inputs_, options_.allow_crimes, file_.path, problems_);
    problems_.throw_if_any();
    expand();
    check_assembly(assembly(), options_, problems_, plan_);
    problems_.throw_if_any();
    output_config_ = make_output_config();
    problems_.throw_if_any();

    inputs_->list_files(std::vector<bool>(inputs_->all().size(), true), plan_);
    if (config_.recipe.kind == RecipeKind::kBtx) {
      problems_.attempt([&] { merged_ = merge_over_experts(file_, config_, *inputs_, base_dtype(), models_, options_, plan_); });
      problems_.throw_if_any();
    }
    std::vector<LogicalTensor> tensors = plan_tensors();
    drop_the_rest();
    problems_.throw_if_any();
    lay_out(arrange(std::move(tensors), family_, layout()), options_, plan_);
    describe();
    problems_.throw_if_any();
    return std::move(plan_);
  }

 private:
  const InputModel& base() const { return (*inputs_)[0]; }

  void read_models() {
    std::vector<config::ModelReference> references = {config_.base_model};
    for (const config::Expert& expert : config_.experts) references.push_back(expert.source_model);
    for (const config::Expert& expert : config_.shared_experts) references.push_back(expert.source_model);
    const InputModels::Places places{file_.path, [&](const config::ModelReference& model) { return config_.line_of_model(model); }};
    inputs_.emplace(references, models_, problems_, places);
    problems_.throw_if_any();
  }

  int num_layers() const { return num_layers_of(base()); }
  std::uint64_t hidden_size() const { return base().catalog.entries.at({-1, -1, "final_norm"}).shape.at(0); }
  bool is_sparse(int layer) const { return sparse_[static_cast<std::size_t>(layer)]; }

  model::Layout layout() const {
    const config::Layout wanted = options_.layout.value_or(config_.layout.value_or(config::Layout::kPerExpert));
    return wanted == config::Layout::kFused ? model::Layout::kFused : model::Layout::kPerExpert;
  }

  /// "without it the base's": of the base's embedding, which every model has.
  DType base_dtype() const {
    if (config_.dtype) return *config_.dtype;
    const auto found = base().catalog.entries.find({-1, -1, "token_embedding"});
    return found == base().catalog.entries.end() ? base().catalog.entries.begin()->second.usual_dtype() : found->second.usual_dtype();
  }
  DType output_dtype(const CatalogEntry& entry) const {
    if (!is_arithmetic(entry.usual_dtype())) return entry.dtype;
    return entry.keep_f32 ? DType::kF32 : base_dtype();
  }

  void expand() {
    experts_ = expand_experts(config_, *inputs_);
    shared_ = expand_shared_experts(config_, *inputs_);
  }

  Assembly assembly() const {
    return {.file = file_,
            .config = config_,
            .inputs = *inputs_,
            .experts = experts_,
            .shared = shared_,
            .sparse_layers = sparse_,
            .family = *family_};
  }

  std::vector<LogicalTensor> plan_tensors() {
    std::vector<LogicalTensor> tensors;
    for (const model::Place place : {model::Place::kBeforeLayers, model::Place::kLayer, model::Place::kAfterLayers}) {
      const bool in_layers = place == model::Place::kLayer;
      for (int layer = in_layers ? 0 : -1; layer < (in_layers ? num_layers() : 0); ++layer) {
        bool experts_planned = false;
        for (const TensorRow& row : family_->tensors) {
          if (row.place != place) continue;
          if (!is_expert_role(row.role)) {
            plan_row(row, layer, tensors);
          } else if (is_sparse(layer) && !std::exchange(experts_planned, true)) {
            plan_experts(layer, tensors);
          }
        }
      }
    }
    return tensors;
  }

  void plan_row(const TensorRow& row, int layer, std::vector<LogicalTensor>& tensors) {
    const TensorKey key{layer, -1, std::string(row.role)};
    const std::string name = model::tensor_name(family_, key);
    const bool sparse = layer >= 0 && is_sparse(layer);
    if (row.role == "router") {
      if (sparse) tensors.push_back({key, gate_rows(name, layer, 0, num_router_rows(), router_repeat())});
    } else if (row.role == "shared_expert_gate") {
      if (sparse && !shared_.empty()) tensors.push_back({key, gate_rows(name, layer, num_router_rows(), 1, 1)});
    } else if (is_shared_role(row.role)) {
      if (sparse && !shared_.empty()) {
        tensors.push_back({key, expert_operation(name, *matrix_of(row.role), shared_, *inputs_, layer, base_dtype(), 0, options_.seed)});
      }
    } else if (!is_dense_ffn(row.role) || !sparse) {
      take(key, name, tensors);
    }
  }

  /// From the base, or merged over the experts.
  void take(const TensorKey& key, const std::string& name, std::vector<LogicalTensor>& tensors) {
    if (const auto merged = merged_.find(key); merged != merged_.end()) {
      Operation operation = std::move(merged->second);
      operation.name = name;
      tensors.push_back({key, std::move(operation)});
      return;
    }
    const auto found = base().catalog.entries.find(key);
    if (found != base().catalog.entries.end()) {
      tensors.push_back({key, copy_operation(name, base(), found->second, output_dtype(found->second))});
    } else if (family_->name == "qwen2_moe" && key.role.starts_with("attention_") && key.role.ends_with("_bias")) {
      tensors.push_back({key, zero_bias(name, key)});
    }
  }

  /// As long as the projection that it belongs to has rows.
  Operation zero_bias(const std::string& name, const TensorKey& key) {
    const TensorKey projection{key.layer, -1, key.role.substr(0, key.role.size() - 5)};
    Operation operation;
    operation.kind = Operation::Kind::kConstant;
    operation.name = name;
    operation.task.shape = {base().catalog.entries.at(projection).shape.at(0)};
    operation.task.output_dtype = base_dtype();
    has_zero_biases_ = true;
    return operation;
  }

  void plan_experts(int layer, std::vector<LogicalTensor>& tensors) {
    for (std::size_t expert = 0; expert < experts_.size(); ++expert) {
      for (const TensorRow& row : family_->tensors) {
        if (!is_expert_role(row.role)) continue;
        TensorKey key{layer, static_cast<int>(expert), std::string(row.role)};
        const std::uint64_t neuron_set = static_cast<std::uint64_t>(layer) * experts_.size() + expert;
        Operation operation = expert_operation(model::tensor_name(family_, key), *matrix_of(row.role), std::span(&experts_[expert], 1),
                                               *inputs_, layer, base_dtype(), neuron_set, options_.seed);
        tensors.push_back({std::move(key), std::move(operation)});
      }
    }
  }

  /// Shards of one copy are chosen together: they have the copy's router row, one after the other.
  std::uint64_t router_repeat() const { return config_.recipe.kind == RecipeKind::kFineGrained ? config_.recipe.shards : 1; }

  /// Rows of the gate mode that a layer's router is made of; the gate of its shared experts is the row after them.
  std::uint64_t num_router_rows() const { return experts_.size() / router_repeat(); }

  /// `num_rows` rows of the gate mode's vectors from row `first_row` on, each `repeat_rows` times.
  Operation gate_rows(const std::string& name, int layer, std::uint64_t first_row, std::uint64_t num_rows, std::uint64_t repeat_rows) {
    const std::uint64_t hidden = hidden_size();
    Operation operation;
    operation.name = name;
    operation.repeat_rows = repeat_rows;
    operation.task.shape = {num_rows * repeat_rows, hidden};
    operation.task.output_dtype = base_dtype();
    if (fills_slot(config_.gate_mode)) {
      const RouterRows rows{file_, config_, base(), sparse_, num_router_rows(), has_shared_gate(*family_)};
      take_slot_rows(rows, models_.storage(), layer, first_row, operation, problems_, plan_);
    } else {
      fill_with_random_rows(config_.gate_mode, hidden, operation);
    }
    return operation;
  }

  bool is_used(std::size_t input, const std::vector<ExpertSource>& experts) const {
    return std::any_of(experts.begin(), experts.end(), [&](const ExpertSource& expert) { return expert.model == input; });
  }

  /// Every tensor of every input is in the output or named with its reason.
  void drop_the_rest() {
    for (std::size_t i = 0; i < inputs_->all().size(); ++i) {
      const InputModel& input = (*inputs_)[i];
      const bool gives_ffn = is_used(i, experts_) || is_used(i, shared_);
      for (const auto& [name, reason] : input.catalog.dropped) {
        const formats::CheckpointTensor* tensor = input.checkpoint->find(name);
        plan_.dropped.push_back({input.label, name, tensor == nullptr ? 0 : num_elements(tensor->shape), reason});
      }
      for (const auto& [key, entry] : input.catalog.entries) drop_unused(i, input, gives_ffn, key, entry);
    }
  }

  /// Whether everything but the FFN comes from this input: the base, or whatever btx merges.
  bool gives_the_rest(std::size_t input) const {
    if (config_.recipe.kind != RecipeKind::kBtx) return input == 0;
    if (is_used(input, experts_)) return true;
    return input == 0 && merge::find_method(config_.recipe.attention_method)->inputs.base != merge::Base::kIgnored;
  }

  void drop_unused(std::size_t index, const InputModel& input, bool gives_ffn, const TensorKey& key, const CatalogEntry& entry) {
    const bool ffn = is_dense_ffn(key.role);
    const bool sparse = key.layer >= 0 && key.layer < num_layers() && is_sparse(key.layer);
    const bool takes_ffn_of_expert = ffn && sparse;
    if (takes_ffn_of_expert ? gives_ffn : gives_the_rest(index)) {
      if (takes_ffn_of_expert || find_role(key.role)) return;
      problems_.add(Problem{ErrorCode::kUnsupported,
                            "tensor '" + printable(model::tensor_name(input.catalog.family, key)) + "' of '" + input.label +
                                "' has no place in a " + title_of(*family_),
                            file_.path,
                            config_.line_of(index == 0 ? "base_model" : "experts"),
                            {}});
      return;
    }
    const char* reason = takes_ffn_of_expert                       ? "the experts bring their own FFN"
                         : config_.recipe.kind == RecipeKind::kBtx ? "btx merges the experts' instead"
                                                                   : "experts give only their FFN";
    plan_.dropped.push_back({input.label, model::tensor_name(input.catalog.family, key), num_elements(entry.shape), reason});
  }

  bool find_role(const std::string& role) const {
    return std::any_of(family_->tensors.begin(), family_->tensors.end(), [&](const TensorRow& row) { return row.role == role; });
  }

  /// config.json but for what the planned tensors decide. What the family cannot hold is a problem of the base's line, or of rope's.
  formats::Json make_output_config() {
    model::AssembledShape shape;
    shape.num_experts = experts_.size();
    shape.experts_per_token = config_.experts_per_token;
    shape.expert_width = ffn_width((*inputs_)[experts_.front().model]) / experts_.front().num_shards;
    for (const ExpertSource& expert : shared_) shape.shared_width += ffn_width((*inputs_)[expert.model]);
    shape.shared_gated = has_shared_gate(*family_);
    shape.sparse_layers = sparse_;
    const model::RopeMode rope = config_.rope == config::RopeChoice::kFoldTheta ? model::RopeMode::kFoldTheta
                                 : config_.rope == config::RopeChoice::kNtk     ? model::RopeMode::kNtk
                                                                                : model::RopeMode::kKeep;
    const formats::Json& dense = base().checkpoint->config;
    try {
      formats::Json result = model::assembled_config(*family_, dense, shape, rope, plan_.notes);
      if (std::string warning = model::rope_warning(dense, rope); !warning.empty()) plan_.warnings.push_back(std::move(warning));
      return result;
    } catch (const Error& error) {
      for (Problem problem : error.problems()) {
        const bool is_about_rope = problem.message.find("rope: ") != std::string::npos;
        problem.message = "'" + base().label + "': " + problem.message;
        problem.path = file_.path;
        problem.line = config_.line_of(is_about_rope ? "rope" : "base_model");
        problems_.add(std::move(problem));
      }
      return {};
    }
  }

  void describe() {
    plan_.title = title_of(*family_) + " of " + std::to_string(experts_.size()) + " experts around " + short_name(config_.base_model);
    plan_.config_path = file_.path;
    plan_.config_text = file_.text;
    plan_.seed = options_.seed;
    for (const InputModel& input : inputs_->all()) {
      plan_.base_models.push_back(input.label);
      for (const std::string& note : input.catalog.notes) plan_.notes.push_back(input.label + ": " + note);
    }
    formats::Json config = std::move(output_config_);
    model::set_dtype(config, base_dtype());
    const TensorKey head{-1, -1, "lm_head"};
    config["tie_word_embeddings"] = !(merged_.empty() ? base().catalog.entries.contains(head) : merged_.contains(head));
    plan_.auxiliary_files = auxiliary_files(*base().checkpoint, *base().checkpoint, options_);
    problems_.attempt([&] { note_tokenizer_class(models_.storage(), plan_.auxiliary_files, plan_.notes); });
    plan_.auxiliary_files.push_back(
        {.action = AuxiliaryFile::Action::kWrite, .name = "config.json", .content = config.dump(2) + "\n", .source = {}, .reason = {}});
    plan_.composition = composition_of(assembly());
    if (has_zero_biases_) plan_.composition.push_back("q, k and v biases: zero, which " + base().label + " has not");
  }

  const config::ConfigFile& file_;
  const MoeConfig& config_;
  ModelSource& models_;
  const PlanOptions& options_;
  const model::Family* family_ = nullptr;
  ProblemList problems_;
  std::optional<InputModels> inputs_;
  std::vector<bool> sparse_;  ///< by layer
  std::vector<ExpertSource> experts_;
  std::vector<ExpertSource> shared_;
  std::map<TensorKey, Operation> merged_;  ///< btx
  bool has_zero_biases_ = false;
  formats::Json output_config_;
  MergePlan plan_;
};

}  // namespace

MergePlan plan_assembly(const config::ConfigFile& file, const MoeConfig& config, ModelSource& models, const PlanOptions& options) {
  if (adds_to_mixture(config, models)) return plan_addition(file, config, models, options);
  return AssemblyPlanner(file, config, models, options).run();
}

}  // namespace moeweld::plan
