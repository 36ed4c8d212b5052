#include "plan/moe_planner.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "moeweld/base/random.h"
#include "moeweld/base/text.h"
#include "moeweld/merge/method.h"
#include "moeweld/model/model_config.h"
#include "plan/auxiliary_files.h"
#include "plan/expert_layout.h"
#include "plan/input_models.h"

namespace moeweld::plan {

namespace {

using config::GateMode;
using config::MoeConfig;
using model::CatalogEntry;
using model::TensorKey;

constexpr std::string_view kDenseFfn[] = {"mlp_gate_proj", "mlp_down_proj", "mlp_up_proj"};
constexpr std::string_view kExpertFfn[] = {"expert_gate_proj", "expert_down_proj", "expert_up_proj"};

class AssemblyPlanner {
 public:
  AssemblyPlanner(const config::ConfigFile& file, const MoeConfig& config, ModelSource& models, const PlanOptions& options)
      : file_(file), config_(config), models_(models), options_(options), family_(*model::find_family("MixtralForCausalLM")) {}

  MergePlan run() {
    std::vector<config::ModelReference> references = {config_.base_model};
    for (const config::Expert& expert : config_.experts) references.push_back(expert.source_model);
    inputs_.emplace(references, models_, problems_);
    problems_.throw_if_any();
    check_models();
    check_degenerate();
    problems_.throw_if_any();

    inputs_->list_files(std::vector<bool>(inputs_->all().size(), true), plan_);
    std::vector<LogicalTensor> tensors = plan_tensors();
    problems_.throw_if_any();
    lay_out(arrange(std::move(tensors), &family_, layout()), options_, plan_);
    describe();
    return std::move(plan_);
  }

 private:
  const InputModel& base() const { return (*inputs_)[0]; }
  const InputModel& source_of(std::size_t expert) const { return (*inputs_)[inputs_->index_of(config_.experts[expert].source_model)]; }
  int num_layers() const {
    const auto found = base().catalog.num_layers.find("model");
    return found == base().catalog.num_layers.end() ? 0 : found->second;
  }

  model::Layout layout() const {
    const config::Layout wanted = options_.layout.value_or(config_.layout.value_or(config::Layout::kPerExpert));
    return wanted == config::Layout::kFused ? model::Layout::kFused : model::Layout::kPerExpert;
  }

  void problem(ErrorCode code, std::string message, int line = 0) {
    problems_.add(Problem{code, std::move(message), file_.path, line, {}});
  }

  void check_models() {
    for (std::size_t i = 0; i < inputs_->all().size(); ++i) {
      const InputModel& input = (*inputs_)[i];
      const std::string_view family = input.catalog.family == nullptr ? std::string_view() : input.catalog.family->name;
      if (family != "llama" && family != "mistral") {
        problem(family == "qwen2" || family == "qwen3" ? ErrorCode::kUnsupported : ErrorCode::kInvalidConfig,
                "'" + input.label + "' is " + (input.architecture.empty() ? "of an unnamed architecture" : input.architecture) +
                    "; a Mixtral is assembled from Llama or Mistral models" +
                    (family.starts_with("qwen") ? ", other families come with a later version" : ""),
                config_.line);
      } else if (family != base().catalog.family->name && !options_.allow_crimes) {
        problem(ErrorCode::kInvalidConfig,
                "'" + base().label + "' is " + base().architecture + " and '" + input.label + "' is " + input.architecture +
                    "; a mixture is made of models of one architecture (or use --allow-crimes)",
                config_.line);
      }
      if (i == 0) continue;
      const auto layers = input.catalog.num_layers.find("model");
      const int count = layers == input.catalog.num_layers.end() ? 0 : layers->second;
      if (count != num_layers()) {
        problem(
            ErrorCode::kInvalidInput,
            "'" + base().label + "' has " + std::to_string(num_layers()) + " layers and '" + input.label + "' has " + std::to_string(count),
            config_.line);
      }
      compare_vocabularies(input);
    }
  }

  void compare_vocabularies(const InputModel& input) {
    const auto find = [](const InputModel& model) {
      const auto found = model.catalog.entries.find({-1, -1, "token_embedding"});
      return found == model.catalog.entries.end() ? Shape{} : found->second.shape;
    };
    if (find(input) != find(base())) {
      plan_.notes.push_back("'" + input.label + "' has a vocabulary of " + to_string(find(input)) + ", the base of " +
                            to_string(find(base())) + ": only its FFN is used");
    }
  }

  void check_degenerate() {
    if (options_.allow_degenerate) return;
    const bool all_same =
        config_.experts.size() > 1 && std::all_of(config_.experts.begin(), config_.experts.end(), [&](const config::Expert& expert) {
          return expert.source_model == config_.experts.front().source_model;
        });
    // A random router is there to be trained, and equal experts with it are sparse upcycling: said, not refused.
    const bool to_be_trained = config_.gate_mode == GateMode::kRandom || config_.gate_mode == GateMode::kUniformRandom;
    if (all_same && to_be_trained) {
      plan_.warnings.push_back(
          "all experts are the same model; before training the mixture computes what that model does, at a higher price");
    } else if (all_same) {
      problem(ErrorCode::kInvalidConfig,
              "all experts are the same model, so the mixture computes what that model does at a higher price. If it is to be trained, use "
              "--allow-degenerate.",
              config_.experts_line != 0 ? config_.experts_line : config_.line);
    }
    if (config_.identical_prompts) {
      problem(ErrorCode::kInvalidConfig,
              "all experts have the same prompts, so the router cannot tell them apart. If the mixture is to be trained, use "
              "--allow-degenerate.",
              config_.experts_line);
    }
  }

  DType output_dtype(const CatalogEntry& entry) const { return entry.keep_f32 ? DType::kF32 : config_.dtype.value_or(base_dtype(entry)); }

  /// "without it the base's": of the base's embedding, which every model has.
  DType base_dtype(const CatalogEntry& entry) const {
    const auto found = base().catalog.entries.find({-1, -1, "token_embedding"});
    return found == base().catalog.entries.end() ? entry.dtype : found->second.dtype;
  }

  Operation take(const InputModel& input, const CatalogEntry& entry, std::string name) {
    Operation operation;
    operation.name = std::move(name);
    operation.task.shape = entry.shape;
    operation.task.output_dtype = is_arithmetic(entry.dtype) ? output_dtype(entry) : entry.dtype;
    operation.task.inputs = {{entry.dtype, {std::numeric_limits<double>::quiet_NaN()}}};
    operation.sources = {{.dtype = entry.dtype,
                          .file = input.first_file + entry.file,
                          .begin = entry.begin,
                          .num_elements = num_elements(entry.shape),
                          .children = {}}};
    operation.kind = operation.task.output_dtype == entry.dtype ? Operation::Kind::kCopy : Operation::Kind::kMerge;
    operation.method = static_cast<std::uint32_t>(merge::find_method("passthrough") - merge::method_table().data());
    return operation;
  }

  static bool is_ffn(const std::string& role) { return std::find(std::begin(kDenseFfn), std::end(kDenseFfn), role) != std::end(kDenseFfn); }

  void take_from_base(int layer, model::Place place, std::vector<LogicalTensor>& tensors) {
    for (const model::TensorRow& row : family_.tensors) {
      if (row.place != place || row.role == "router" || row.role.starts_with("expert_")) continue;
      const TensorKey key{layer, -1, std::string(row.role)};
      const auto found = base().catalog.entries.find(key);
      if (found != base().catalog.entries.end()) tensors.push_back({key, take(base(), found->second, model::tensor_name(&family_, key))});
    }
  }

  std::vector<LogicalTensor> plan_tensors() {
    std::vector<LogicalTensor> tensors;
    take_from_base(-1, model::Place::kBeforeLayers, tensors);
    for (int layer = 0; layer < num_layers(); ++layer) {
      take_from_base(layer, model::Place::kLayer, tensors);
      tensors.push_back(router(layer));
      for (std::size_t expert = 0; expert < config_.experts.size(); ++expert) {
        for (std::size_t i = 0; i < std::size(kDenseFfn); ++i) add_expert(layer, expert, i, tensors);
      }
    }
    take_from_base(-1, model::Place::kAfterLayers, tensors);
    drop_the_rest();
    return tensors;
  }

  void add_expert(int layer, std::size_t expert, std::size_t matrix, std::vector<LogicalTensor>& tensors) {
    const InputModel& input = source_of(expert);
    const TensorKey source{layer, -1, std::string(kDenseFfn[matrix])};
    const TensorKey key{layer, static_cast<int>(expert), std::string(kExpertFfn[matrix])};
    const auto found = input.catalog.entries.find(source);
    const auto own = base().catalog.entries.find(source);
    if (found == input.catalog.entries.end()) return;  // the catalog has reported it
    if (own != base().catalog.entries.end() && own->second.shape != found->second.shape) {
      if (layer == 0) {
        problem(ErrorCode::kInvalidInput,
                "expert " + std::to_string(expert) + " ('" + input.label + "') has " + std::string(kDenseFfn[matrix]) + " of " +
                    to_string(found->second.shape) + ", the base of " + to_string(own->second.shape) +
                    "; experts must be as wide as the base",
                config_.experts[expert].line);
      }
      return;
    }
    tensors.push_back({key, take(input, found->second, model::tensor_name(&family_, key))});
  }

  LogicalTensor router(int layer) {
    const TensorKey key{layer, -1, "router"};
    const std::uint64_t experts = config_.experts.size();
    const CatalogEntry& norm = base().catalog.entries.at({-1, -1, "final_norm"});
    const std::uint64_t hidden = norm.shape.at(0);
    Operation operation;
    operation.name = model::tensor_name(&family_, key);
    operation.task.shape = {experts, hidden};
    operation.task.output_dtype = config_.dtype.value_or(base_dtype(norm));
    if (config_.gate_mode == GateMode::kCheapEmbed) {
      operation.kind = Operation::Kind::kSlot;
      operation.slot = cheap_embed_slot(hidden);
    } else {
      operation.kind = Operation::Kind::kRandomFill;
      operation.fill.stream = stream_id(operation.name);
      const bool normal = config_.gate_mode == GateMode::kRandom;
      operation.fill.distribution = normal ? Operation::RandomFill::Distribution::kNormal : Operation::RandomFill::Distribution::kUniform;
      operation.fill.scale = normal ? 1.0 : 1.0 / std::sqrt(static_cast<double>(hidden));
    }
    return {key, std::move(operation)};
  }

  std::uint32_t cheap_embed_slot(std::uint64_t hidden) {
    if (!plan_.slots.empty()) return 0;  // the same rows for all layers
    const CatalogEntry& embedding = base().catalog.entries.at({-1, -1, "token_embedding"});
    Slot slot;
    slot.name = "router rows (cheap_embed)";
    slot.shape = {config_.experts.size(), hidden};
    slot.embedding = {.dtype = embedding.dtype,
                      .file = base().first_file + embedding.file,
                      .begin = embedding.begin,
                      .num_elements = num_elements(embedding.shape),
                      .children = {}};
    slot.embedding_shape = embedding.shape;
    for (const config::Expert& expert : config_.experts) {
      for (const auto* prompts : {&expert.positive_token_ids, &expert.negative_token_ids}) {
        for (const auto& prompt : *prompts) {
          for (const std::int64_t id : prompt) {
            if (static_cast<std::uint64_t>(id) < embedding.shape.at(0)) continue;
            problem(ErrorCode::kInvalidConfig,
                    "token id " + std::to_string(id) + " is beyond the base's vocabulary of " + std::to_string(embedding.shape.at(0)),
                    expert.line);
          }
        }
      }
      slot.positive_ids.push_back(expert.positive_token_ids);
      slot.negative_ids.push_back(expert.negative_token_ids);
    }
    plan_.slots.push_back(std::move(slot));
    return 0;
  }

  void drop_the_rest() {
    for (std::size_t i = 0; i < inputs_->all().size(); ++i) {
      const InputModel& input = (*inputs_)[i];
      const bool is_expert = std::any_of(config_.experts.begin(), config_.experts.end(),
                                         [&](const config::Expert& expert) { return expert.source_model == input.reference; });
      for (const auto& [name, reason] : input.catalog.dropped) {
        const formats::CheckpointTensor* tensor = input.checkpoint->find(name);
        plan_.dropped.push_back({input.label, name, tensor == nullptr ? 0 : num_elements(tensor->shape), reason});
      }
      for (const auto& [key, entry] : input.catalog.entries) {
        const bool ffn = is_ffn(key.role);
        if (ffn ? is_expert : i == 0 && is_known(key.role)) continue;
        const std::string name = model::tensor_name(input.catalog.family, key);
        if (i == 0 && !ffn) {
          problem(ErrorCode::kUnsupported, "tensor '" + printable(name) + "' of the base has no place in a Mixtral", config_.line);
          continue;
        }
        plan_.dropped.push_back(
            {input.label, name, num_elements(entry.shape), i == 0 ? "the experts bring their own FFN" : "experts give only their FFN"});
      }
    }
  }

  bool is_known(const std::string& role) const {
    return std::any_of(family_.tensors.begin(), family_.tensors.end(), [&](const model::TensorRow& row) { return row.role == role; });
  }

  void describe() {
    plan_.title = "Mixtral of " + std::to_string(config_.experts.size()) + " experts around " + short_name(config_.base_model);
    plan_.config_path = file_.path;
    plan_.config_text = file_.text;
    plan_.seed = options_.seed;
    for (const InputModel& input : inputs_->all()) plan_.base_models.push_back(input.label);
    if ((config_.experts.size() & (config_.experts.size() - 1)) != 0) {
      plan_.warnings.push_back(std::to_string(config_.experts.size()) +
                               " experts are no power of two; older versions of llama.cpp cannot read such a Mixtral");
    }
    formats::Json config = model::mixtral_config(base().checkpoint->config, static_cast<int>(config_.experts.size()),
                                                 static_cast<int>(config_.experts_per_token), plan_.notes);
    model::set_dtype(config, config_.dtype.value_or(base_dtype(base().catalog.entries.begin()->second)));
    config["tie_word_embeddings"] = !base().catalog.entries.contains({-1, -1, "lm_head"});
    plan_.auxiliary_files = auxiliary_files(*base().checkpoint, *base().checkpoint, options_);
    plan_.auxiliary_files.push_back(
        {.action = AuxiliaryFile::Action::kWrite, .name = "config.json", .content = config.dump(2) + "\n", .source = {}, .reason = {}});
  }

  const config::ConfigFile& file_;
  const MoeConfig& config_;
  ModelSource& models_;
  const PlanOptions& options_;
  const model::Family& family_;
  ProblemList problems_;
  std::optional<InputModels> inputs_;
  MergePlan plan_;
};

}  // namespace

MergePlan plan_assembly(const config::ConfigFile& file, const MoeConfig& config, ModelSource& models, const PlanOptions& options) {
  return AssemblyPlanner(file, config, models, options).run();
}

}  // namespace moeweld::plan
