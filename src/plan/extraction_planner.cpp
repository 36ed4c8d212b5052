#include <algorithm>
#include <functional>
#include <optional>

#include "moeweld/base/text.h"
#include "moeweld/merge/method.h"
#include "moeweld/model/extracted_config.h"
#include "moeweld/model/model_config.h"
#include "moeweld/plan/extraction.h"
#include "plan/auxiliary_files.h"
#include "plan/expert_layout.h"
#include "plan/expert_merge.h"
#include "plan/expert_operations.h"
#include "plan/input_models.h"
#include "plan/several_outputs.h"
#include "plan/source_views.h"

namespace moeweld::plan {

namespace {

using model::CatalogEntry;
using model::TensorKey;
using model::TensorRow;
using What = Extraction::What;

/// The matrix of an FFN that a role of the dense model, or of an expert, names: "gate_proj", "up_proj" or "down_proj".
std::optional<std::string> ffn_matrix(std::string_view role) {
  for (const std::string_view prefix : {"mlp_", "expert_"}) {
    if (!role.starts_with(prefix)) continue;
    const std::string_view matrix = role.substr(prefix.size());
    if (matrix == "gate_proj" || matrix == "up_proj" || matrix == "down_proj") return std::string(matrix);
  }
  return std::nullopt;
}

/// Which tensors are planned: all, or, for several outputs, those that all models share or those that each has for itself.
enum class Part : std::uint8_t { kAll, kCommon, kOwn };

class ExtractionPlanner {
 public:
  ExtractionPlanner(const config::ModelReference& reference, const Extraction& extraction, ModelSource& models, const PlanOptions& options)
      : reference_(reference), extraction_(extraction), options_(options), inputs_({reference}, models, problems_) {}

  MergePlan run() {
    problems_.throw_if_any();
    find_twin();
    check_request();
    problems_.throw_if_any();
    inputs_.list_files({true}, plan_);
    if (extraction_.what == What::kAll) {
      plan_all();
    } else {
      const int expert = extraction_.what == What::kExpert ? extraction_.experts.front() : -1;
      lay_out(arrange(tensors(Part::kAll, expert), twin_, layout()), options_, plan_);
    }
    account_for_the_rest();
    problems_.throw_if_any();
    describe();
    return std::move(plan_);
  }

 private:
  const InputModel& input() const { return inputs_[0]; }
  const model::Family& source() const { return *input().catalog.family; }
  int num_layers() const { return input().catalog.num_layers.at("model"); }
  int num_experts() const { return input().catalog.num_experts; }
  bool is_sparse(int layer) const { return input().catalog.sparse_layers[static_cast<std::size_t>(layer)]; }
  /// OLMoE: no dense family has its norms, so it becomes a mixture of one expert.
  bool keeps_router() const { return twin_ == &source(); }
  bool takes_one() const { return extraction_.what == What::kExpert || extraction_.what == What::kAll; }

  const CatalogEntry* find(const TensorKey& key) const {
    const auto found = input().catalog.entries.find(key);
    return found == input().catalog.entries.end() ? nullptr : &found->second;
  }

  model::Layout layout() const { return options_.layout == config::Layout::kFused ? model::Layout::kFused : model::Layout::kPerExpert; }

  void problem(ErrorCode code, std::string message, std::string path = {}, std::string tensor = {}) {
    problems_.add({code, std::move(message), std::move(path), 0, std::move(tensor)});
  }

  void find_twin() {
    if (input().catalog.family != nullptr) twin_ = model::extracted_family(source());
    if (twin_ != nullptr) return;
    throw Error(ErrorCode::kUnsupported,
                "is " + (input().architecture.empty() ? std::string("of an unnamed architecture") : input().architecture) +
                    "; experts are extracted from Mixtral, Qwen2-MoE, Qwen3-MoE, DeepSeek v1, OLMoE, GraniteMoe and GraniteMoeShared",
                input().checkpoint->directory);
  }

  void check_request() {
    const std::string label = "'" + input().label + "'";
    if (extraction_.what == What::kExpert) check_experts();
    if (!extraction_.weights.empty() && extraction_.weights.size() != static_cast<std::size_t>(num_experts())) {
      problem(ErrorCode::kUsage, "--weights has " + std::to_string(extraction_.weights.size()) + " values; " + label + " has " +
                                     std::to_string(num_experts()) + " experts");
    } else if (extraction_.what == What::kAverage || extraction_.what == What::kMerge) {
      merge_.emplace(extraction_, static_cast<std::size_t>(num_experts()), problems_);
    }
    for (int layer = 0; layer < num_layers(); ++layer) {
      has_gated_shared_ = has_gated_shared_ || find({layer, -1, "shared_expert_gate"}) != nullptr;
      has_shared_ = has_shared_ || find({layer, -1, "shared_gate_proj"}) != nullptr;
    }
    if (has_gated_shared_ && !extraction_.drop_gated_shared) {
      problem(ErrorCode::kUnsupported,
              "has a gated shared expert in each layer: its output is multiplied by a number that depends on the token, which no dense FFN "
              "does. --gated-shared drop leaves it out.",
              input().checkpoint->directory);
    }
    has_shared_ = has_shared_ && !has_gated_shared_;
    for (int layer = 0; layer < num_layers(); ++layer) width_ = std::max(width_, own_width(layer));
  }

  void check_experts() {
    const std::vector<int>& experts = extraction_.experts;
    if (experts.size() != 1 && experts.size() != static_cast<std::size_t>(num_layers())) {
      problem(ErrorCode::kUsage, "--expert takes one index, or one for each of the " + std::to_string(num_layers()) + " layers; " +
                                     std::to_string(experts.size()) + " are given");
    }
    for (const int expert : experts) {
      if (expert >= 0 && expert < num_experts()) continue;
      problem(ErrorCode::kUsage, "there is no expert " + std::to_string(expert) + ": '" + input().label + "' has experts 0 to " +
                                     std::to_string(num_experts() - 1));
      return;
    }
  }

  int expert_of(int layer, int expert) const {
    return extraction_.what == What::kExpert && extraction_.experts.size() > 1 ? extraction_.experts[static_cast<std::size_t>(layer)]
                                                                               : expert;
  }

  /// The input's matrices that stand together in the layer's FFN: of `expert` and the shared one, or the dense layer's own.
  std::vector<const CatalogEntry*> ffn_entries(int layer, int expert, const std::string& matrix) const {
    if (!is_sparse(layer)) return {find({layer, -1, "mlp_" + matrix})};
    std::vector<const CatalogEntry*> result = {find({layer, expert, "expert_" + matrix})};
    const CatalogEntry* shared = find({layer, -1, "shared_" + matrix});
    if (has_shared_ && shared != nullptr) result.push_back(shared);
    return result;
  }

  /// Neurons of the layer's FFN before it is padded.
  std::uint64_t own_width(int layer) const {
    std::uint64_t width = 0;
    for (const CatalogEntry* entry : ffn_entries(layer, 0, "gate_proj")) width += entry->shape.at(0);
    return width;
  }

  SourceView ffn_view(int layer, int expert, const std::string& matrix) const {
    const bool is_down = matrix == "down_proj";
    std::vector<SourceView> parts;
    for (const CatalogEntry* entry : ffn_entries(layer, expert, matrix)) parts.push_back(bytes_of(input(), *entry));
    if (const std::uint64_t missing = width_ - own_width(layer); missing != 0) {
      const SourceView& first = parts.front();
      parts.push_back(is_down ? zeros(first.dtype, rows_of(first), missing) : zeros(first.dtype, missing, first.columns));
    }
    return is_down ? join_columns(std::move(parts)) : stack_rows(std::move(parts));
  }

  static Operation copy_of(std::string name, SourceView view, Shape shape) {
    const DType dtype = usual_dtype(view);
    Operation operation = copy_view(std::move(name), std::move(view), dtype);
    operation.task.shape = std::move(shape);
    return operation;
  }
  static Operation copy_of(std::string name, SourceView matrix) {
    Shape shape{rows_of(matrix), matrix.columns};
    return copy_of(std::move(name), std::move(matrix), std::move(shape));
  }

  Operation ffn(std::string name, int layer, int expert, const std::string& matrix) {
    if (takes_one() || !is_sparse(layer)) return copy_of(std::move(name), ffn_view(layer, expert_of(layer, expert), matrix));
    Operation operation;
    operation.name = std::move(name);
    for (int each = 0; each < num_experts(); ++each) operation.sources.push_back(ffn_view(layer, each, matrix));
    operation.task.shape = {rows_of(operation.sources.front()), operation.sources.front().columns};
    if (extraction_.what == What::kRouterWeighted) {
      weight_by_router(layer, operation);
    } else {
      merge_->fill(options_.seed, operation, problems_);
    }
    return operation;
  }

  void weight_by_router(int layer, Operation& operation) {
    if (plan_.slots.empty()) {
      Slot slot;
      slot.kind = Slot::Kind::kExpertWeights;
      slot.name = "weights of the experts (router_weighted)";
      plan_.slots.push_back(std::move(slot));
    }
    Slot& slot = plan_.slots.front();
    const auto experts = static_cast<std::uint64_t>(num_experts());
    if (slot.layers.empty() || slot.layers.back() != static_cast<std::uint32_t>(layer)) {
      slot.layers.push_back(static_cast<std::uint32_t>(layer));
      slot.routers.push_back(bytes_of(input(), *find({layer, -1, "router"})));
      slot.shape = {slot.layers.size(), experts};
    }
    operation.kind = Operation::Kind::kMerge;
    operation.method = static_cast<std::uint32_t>(merge::find_method("router_weighted") - merge::method_table().data());
    operation.slot = 0;
    operation.fill.first_index = (slot.layers.size() - 1) * experts;
    operation.task.output_dtype = usual_dtype(operation.sources.front());
    for (const SourceView& view : operation.sources) {
      operation.task.output_dtype = promote(operation.task.output_dtype, usual_dtype(view));
      operation.task.inputs.push_back({view.dtype, {}});
    }
  }

  /// Of a mixture of one expert: any row does, the softmax of one number is 1.
  Operation only_router(std::string name, int layer, int expert) {
    const SourceView all = bytes_of(input(), *find({layer, -1, "router"}));
    if (takes_one()) return copy_of(std::move(name), slice_rows(all, static_cast<std::uint64_t>(expert_of(layer, expert)), 1));
    Operation operation;
    operation.kind = Operation::Kind::kConstant;
    operation.name = std::move(name);
    operation.task.shape = {1, all.columns};
    operation.task.output_dtype = all.dtype;
    return operation;
  }

  std::vector<LogicalTensor> tensors(Part part, int expert) {
    std::vector<LogicalTensor> result;
    for (const model::Place place : {model::Place::kBeforeLayers, model::Place::kLayer, model::Place::kAfterLayers}) {
      const bool in_layers = place == model::Place::kLayer;
      for (int layer = in_layers ? 0 : -1; layer < (in_layers ? num_layers() : 0); ++layer) {
        for (const TensorRow& row : twin_->tensors) {
          if (row.place == place) plan_row(row, layer, part, expert, result);
        }
      }
    }
    return result;
  }

  void plan_row(const TensorRow& row, int layer, Part part, int expert, std::vector<LogicalTensor>& result) {
    const std::optional<std::string> matrix = ffn_matrix(row.role);
    const bool is_router = row.role == "router";
    const bool is_own = (matrix || is_router) && is_sparse(layer);
    if (part != Part::kAll && (part == Part::kOwn) != is_own) return;
    TensorKey key{layer, matrix && row.role.starts_with("expert_") ? 0 : -1, std::string(row.role)};
    std::string name = model::tensor_name(twin_, key);
    if (matrix) {
      Operation operation = ffn(std::move(name), layer, expert, *matrix);
      result.push_back({std::move(key), std::move(operation)});
    } else if (is_router) {
      Operation operation = only_router(std::move(name), layer, expert);
      result.push_back({std::move(key), std::move(operation)});
    } else if (const CatalogEntry* entry = find(key)) {
      result.push_back({std::move(key), copy_of(std::move(name), bytes_of(input(), *entry), entry->shape)});
    }
  }

  void plan_all() {
    std::vector<std::string> outputs;
    std::vector<std::vector<OutputTensor>> own;
    for (int expert = 0; expert < num_experts(); ++expert) {
      outputs.push_back("expert-" + std::to_string(expert));
      own.push_back(arrange(tensors(Part::kOwn, expert), twin_, layout()));
    }
    lay_out_several(outputs, arrange(tensors(Part::kCommon, -1), twin_, layout()), std::move(own), options_, plan_);
  }

  /// Every tensor of the input is in the output or named with its reason.
  void account_for_the_rest() {
    for (const auto& [name, reason] : input().catalog.dropped) plan_.dropped.push_back({input().label, name, 0, reason});
    for (const auto& [key, entry] : input().catalog.entries) {
      const std::string name = model::tensor_name(&source(), key);
      if (const std::string reason = reason_to_drop(key); !reason.empty()) {
        plan_.dropped.push_back({input().label, name, num_elements(entry.shape), reason});
      } else if (!has_place(key)) {
        problem(ErrorCode::kUnsupported, "has no place in a " + std::string(twin_->architectures.front()), input().checkpoint->directory,
                name);
      }
    }
  }

  std::string reason_to_drop(const TensorKey& key) const {
    if (key.role == "router") {
      if (!keeps_router()) return "a dense model has no router";
      return takes_one() ? "" : "the router of one expert decides nothing";
    }
    if (key.expert >= 0) {
      const bool is_other = extraction_.what == What::kExpert && key.expert != expert_of(key.layer, extraction_.experts.front());
      return is_other ? "another expert" : "";
    }
    return has_gated_shared_ && key.role.starts_with("shared_") ? "gated shared experts are dropped" : "";
  }

  bool has_place(const TensorKey& key) const {
    if (key.expert >= 0 || key.role.starts_with("shared_")) return true;
    return std::any_of(twin_->tensors.begin(), twin_->tensors.end(), [&](const TensorRow& row) { return row.role == key.role; });
  }

  static std::string joined(const std::vector<int>& values) {
    std::string text;
    for (const int value : values) text += (text.empty() ? "" : ",") + std::to_string(value);
    return text;
  }

  /// What the FFN of the sparse layers is.
  std::string subject() const {
    const std::string experts = "the " + std::to_string(num_experts()) + " experts";
    switch (extraction_.what) {
      case What::kExpert:
        return "expert " + joined(extraction_.experts);
      case What::kAll:
        return "each of " + experts;
      case What::kAverage:
        return std::string(extraction_.weights.empty() ? "average" : "weighted average") + " of " + experts;
      case What::kRouterWeighted:
        return "average, weighted by the router's rows, of " + experts;
      case What::kMerge:
        return extraction_.method + " over " + experts;
    }
    return {};
  }

  void describe() {
    const std::string& label = input().label;
    plan_.title = subject() + " of " + short_name(reference_);
    plan_.config_text = "# moeweld extract " + label + ": " + subject() + "\n";
    plan_.seed = options_.seed;
    plan_.base_models = {label};
    const std::string caution =
        takes_one() ? "An expert pulled out of a jointly trained mixture is not a usable model by itself: it has learnt to answer for some "
                      "tokens of some layers only, together with others. An expert that was assembled from dense models comes back: its "
                      "FFN bit for bit, and the whole model where everything else equals the mixture's base and noise and scale were "
                      "neutral."
                    : "Experts of a jointly trained mixture that are merged into one are not a usable model by themselves, but at best "
                      "somewhere to start training from.";
    plan_.about = {"The FFN of each sparse layer is " + subject() + " of the mixture " + label +
                       (has_shared_ ? ", with the shared expert beside it" : "") + "; all other tensors are the mixture's own.",
                   caution};
    if (has_gated_shared_) plan_.about.push_back("The mixture's gated shared experts are left out.");
    plan_.notes.push_back(caution);
    if (keeps_router())
      plan_.notes.push_back("no dense family has the norms of an " + source_title() + ": the result is a mixture of one expert");
    for (int layer = 0; layer < num_layers(); ++layer) {
      if (own_width(layer) == width_) continue;
      plan_.notes.push_back("layers whose FFN is narrower than " + std::to_string(width_) + " neurons are padded with zeros");
      break;
    }
    formats::Json config = model::extracted_config(source(), input().checkpoint->config, width_, plan_.notes);
    config["tie_word_embeddings"] = find({-1, -1, "lm_head"}) == nullptr;
    plan_.auxiliary_files = auxiliary_files(*input().checkpoint, *input().checkpoint, options_);
    plan_.auxiliary_files.push_back(
        {.action = AuxiliaryFile::Action::kWrite, .name = "config.json", .content = config.dump(2) + "\n", .source = {}, .reason = {}});
  }

  std::string source_title() const { return std::string(source().architectures.front()); }

  const config::ModelReference& reference_;
  const Extraction& extraction_;
  const PlanOptions& options_;
  ProblemList problems_;
  InputModels inputs_;
  const model::Family* twin_ = nullptr;
  std::optional<ExpertMerge> merge_;
  std::uint64_t width_ = 0;        // neurons of every layer's FFN
  bool has_shared_ = false;        // ungated: beside the extracted expert
  bool has_gated_shared_ = false;  // left out
  MergePlan plan_;
};

}  // namespace

MergePlan make_extraction_plan(const config::ModelReference& reference, const Extraction& extraction, ModelSource& models,
                               const PlanOptions& options) {
  return ExtractionPlanner(reference, extraction, models, options).run();
}

}  // namespace moeweld::plan
