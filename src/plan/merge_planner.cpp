#include "plan/merge_planner.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "moeweld/base/random.h"
#include "moeweld/base/text.h"
#include "moeweld/merge/block_scales.h"
#include "moeweld/model/model_config.h"
#include "plan/auxiliary_files.h"
#include "plan/expert_alignment.h"
#include "plan/expert_layout.h"
#include "plan/grouped_problems.h"
#include "plan/input_models.h"
#include "plan/output_config.h"
#include "plan/parameters.h"
#include "plan/slices.h"
#include "plan/source_views.h"
#include "plan/tensor_matching.h"
#include "plan/vocabulary.h"

namespace moeweld::plan {

namespace {

using config::MergeConfig;
using model::CatalogEntry;

class MergePlanner {
 public:
  MergePlanner(const config::ConfigFile& file, MergeConfig config, ModelSource& models, const PlanOptions& options, AlignedLayers aligned)
      : file_(file),
        config_(std::move(config)),
        models_(models),
        options_(options),
        aligned_(aligned),
        method_(*merge::find_method(config_.merge_method)),
        resolver_(config_.merge_method, file.path) {}

  MergePlan run() {
    normalize_parameters(config_, method_, file_.path, problems_, plan_.notes);
    check_slices(config_, method_, file_.path, problems_);
    const InputModels::Places places{file_.path, [&](const config::ModelReference& model) { return config_.line_of(model); }};
    inputs_.emplace(config_.referenced_models(), models_, problems_, places);
    problems_.throw_if_any();

    inputs_->check_architectures(options_.allow_crimes, problems_);
    modules_ = make_modules(config_, method_, *inputs_);
    matching_ = match_tensors(modules_, *inputs_, options_.allow_crimes, config_.mtp, file_.path, problems_);
    list_inputs();
    std::vector<LogicalTensor> tensors;
    tensors.reserve(matching_.tensors.size());
    for (const MatchedTensor& tensor : matching_.tensors) add_operation(tensor, tensors);
    groups_.report(problems_);
    resolver_.report(problems_);
    check_tokenizer();
    if (config_.out_fp8_block && num_quantised_ + num_codes_copied_ == 0) {
      problems_.add(Problem{ErrorCode::kInvalidConfig,
                            "out_dtype is fp8_block, but no model holds block-scaled FP8, so nothing says which matrices to write so",
                            file_.path,
                            config_.out_dtype_line,
                            {}});
    }
    problems_.throw_if_any();

    const model::Family* family = donor().catalog.family;
    if (options_.layout == config::Layout::kFused && (family == nullptr || family->fused.empty())) {
      plan_.notes.push_back("--layout fused has no effect: the model has no experts that could be fused");
    }
    lay_out(arrange(std::move(tensors), family, layout()), options_, plan_);
    if (config_.align_experts) align_experts(*config_.align_experts, matching_, *inputs_, file_.path, problems_, plan_, aligned_);
    describe();
    add_files();
    problems_.throw_if_any();
    return std::move(plan_);
  }

 private:
  /// Whose config.json and tokenizer the output has.
  const InputModel& donor() const { return (*inputs_)[0]; }

  model::Layout layout() const {
    if (options_.layout) return *options_.layout == config::Layout::kFused ? model::Layout::kFused : model::Layout::kPerExpert;
    return model::Layout::kPerExpert;
  }

  void list_inputs() {
    std::vector<bool> is_read(inputs_->all().size(), false);
    for (const Module& module : modules_) {
      for (const Slice& slice : module.slices) {
        for (const SliceSource& source : slice.sources) is_read[source.model] = true;
      }
    }
    if (!matching_.base_slices.empty()) is_read[0] = true;
    inputs_->list_files(is_read, plan_);
  }

  const InputModel& input_of(const MatchedTensor& tensor, std::size_t source) const {
    return (*inputs_)[tensor.slice->sources[source].model];
  }

  void add_operation(const MatchedTensor& tensor, std::vector<LogicalTensor>& tensors) {
    Operation operation;
    operation.name = tensor.name;
    operation.task.tensor_key = stream_id(tensor.name);
    operation.task.seed = options_.seed;
    operation.task.shape = common_shape(tensor);
    const std::uint64_t elements = num_elements(operation.task.shape);
    for (std::size_t i = 0; i < tensor.inputs.size(); ++i) {
      const CatalogEntry& entry = *tensor.inputs[i];
      SourceView view = bytes_of(input_of(tensor, i), entry);
      const std::uint64_t rows = view.columns == 0 ? 0 : elements / view.columns;
      if (elements != view.num_elements) view = slice_rows(std::move(view), 0, rows);
      operation.sources.push_back(std::move(view));
    }
    const bool arithmetic = std::all_of(tensor.inputs.begin(), tensor.inputs.end(),
                                        [](const CatalogEntry* entry) { return is_arithmetic(entry->usual_dtype()); });
    if (arithmetic && tensor.is_taken) {
      fill_taken(tensor, operation);
    } else if (arithmetic) {
      fill_merge(tensor, operation);
    } else {
      fill_copy(tensor, operation);
    }
    std::optional<Operation> scales;
    if (arithmetic && is_quantised(tensor)) scales = quantise(tensor, operation);
    tensors.push_back({tensor.key, std::move(operation), std::move(scales)});
  }

  /// out_dtype fp8_block: what some input holds so.
  bool is_quantised(const MatchedTensor& tensor) const {
    return config_.out_fp8_block && std::any_of(tensor.inputs.begin(), tensor.inputs.end(), [](const CatalogEntry* entry) {
             return entry->scale.has_value() && !entry->keep_f32 && entry->shape.size() == 2 && num_elements(entry->shape) != 0;
           });
  }

  /// Makes `operation` write codes and returns what writes their scales. A matrix that is only passed on keeps its own.
  Operation quantise(const MatchedTensor& tensor, Operation& operation) {
    Operation scales;
    const CatalogEntry& entry = *tensor.inputs.front();
    const bool is_passed_on =
        merge::method_table()[operation.method].name == "passthrough" && std::isnan(operation.task.inputs[0].parameters[0]);
    const bool is_whole = entry.scale && entry.scale->first_row == 0 &&
                          entry.scale->shape.at(0) == merge::num_scale_blocks(entry.shape.at(0)) && operation.task.shape == entry.shape;
    if (is_passed_on && is_whole && entry.scale->dtype == DType::kF32) {
      const SourceView scaled = std::move(operation.sources.front());
      const auto copy = [](Operation& copied, const SourceView& bytes, const Shape& shape) {
        copied.kind = Operation::Kind::kCopy;
        copied.task.shape = shape;
        copied.task.output_dtype = bytes.dtype;
        copied.task.inputs = {{bytes.dtype, {std::numeric_limits<double>::quiet_NaN()}}};
        copied.sources = {bytes};
      };
      copy(operation, scaled.children.at(0), entry.shape);
      copy(scales, scaled.children.at(1), entry.scale->shape);
      ++num_codes_copied_;
      return scales;
    }
    operation.kind = Operation::Kind::kMerge;
    operation.task.output_dtype = DType::kF32;
    operation.block_scaled = true;
    scales.kind = Operation::Kind::kBlockScales;
    scales.task.shape = operation.task.shape;
    scales.task.output_dtype = DType::kF32;
    ++num_quantised_;
    return scales;
  }

  /// Rows that every embedding and head of every model has.
  std::uint64_t common_rows() {
    if (!common_rows_) {
      std::uint64_t rows = std::numeric_limits<std::uint64_t>::max();
      for (const MatchedTensor& tensor : matching_.tensors) {
        if (!is_vocabulary(tensor)) continue;
        for (const CatalogEntry* entry : tensor.inputs) rows = std::min(rows, entry->shape.at(0));
      }
      common_rows_ = rows;
    }
    return *common_rows_;
  }

  /// The donor's shape; the common rows of truncated embeddings.
  Shape common_shape(const MatchedTensor& tensor) {
    const auto donor_index = static_cast<std::size_t>(tensor.slice->donor);
    Shape shape = tensor.inputs[donor_index]->shape;
    // Embedding and head keep the same rows, whichever of them is the shortest.
    if (options_.unsafe_truncate_embeddings && is_vocabulary(tensor) && common_rows() < shape.at(0)) {
      shape[0] = common_rows();
      truncated_ = true;
    }
    for (std::size_t i = 0; i < tensor.inputs.size(); ++i) {
      const Shape& other = tensor.inputs[i]->shape;
      if (other == shape) continue;
      const bool rows_only =
          shape.size() == other.size() && !shape.empty() && std::equal(shape.begin() + 1, shape.end(), other.begin() + 1);
      const bool vocabulary = is_vocabulary(tensor) && rows_only;
      if (vocabulary && options_.unsafe_truncate_embeddings) {
        truncated_ = true;
        continue;
      }
      groups_.add("shape\n" + input_of(tensor, i).label,
                  Problem{ErrorCode::kInvalidInput,
                          "is " + to_string(tensor.inputs[donor_index]->shape) + " in '" + input_of(tensor, donor_index).label + "' and " +
                              to_string(other) + " in '" + input_of(tensor, i).label + "'." +
                              (vocabulary ? " The models have unlike vocabularies; merging those (tokenizer_source) comes with a later "
                                            "version. --unsafe-truncate-embeddings keeps the common "
                                            "rows, which is right only where token ids mean the same."
                                          : " Only tensors of equal shapes can be merged."),
                          input_of(tensor, i).checkpoint->directory, 0, tensor.name});
    }
    if (truncated_) vocabulary_rows_ = common_rows();
    return shape;
  }

  static bool is_vocabulary(const MatchedTensor& tensor) {
    return std::any_of(tensor.inputs.begin(), tensor.inputs.end(), [](const CatalogEntry* entry) { return entry->vocabulary_rows; });
  }

  void fill_copy(const MatchedTensor& tensor, Operation& operation) {
    operation.kind = Operation::Kind::kCopy;
    operation.task.output_dtype = tensor.inputs[0]->usual_dtype();
    for (std::size_t i = 1; i < tensor.inputs.size(); ++i) {
      if (tensor.inputs[i]->usual_dtype() == tensor.inputs[0]->usual_dtype()) continue;
      groups_.add("dtype\n" + input_of(tensor, i).label,
                  Problem{ErrorCode::kInvalidInput,
                          "is " + std::string(name(tensor.inputs[0]->dtype)) + " in '" + input_of(tensor, 0).label + "' and " +
                              std::string(name(tensor.inputs[i]->dtype)) + " in '" + input_of(tensor, i).label +
                              "'. Tensors that are not F64, F32, F16 or BF16 are copied, so they must be the same in all models.",
                          input_of(tensor, i).checkpoint->directory, 0, tensor.name});
    }
    for (const CatalogEntry* entry : tensor.inputs) operation.task.inputs.push_back({entry->dtype, {}});
    ++num_copied_;
  }

  /// `usual`: what the inputs ask for. fp8_block leaves that to them.
  DType out_dtype(DType usual) const { return config_.out_fp8_block ? usual : config_.out_dtype.value_or(config_.dtype.value_or(usual)); }

  void fill_taken(const MatchedTensor& tensor, Operation& operation) const {
    const CatalogEntry& entry = *tensor.inputs.front();
    operation.method = static_cast<std::uint32_t>(merge::find_method("passthrough") - merge::method_table().data());
    operation.task.output_dtype = entry.keep_f32 ? DType::kF32 : out_dtype(entry.usual_dtype());
    operation.task.inputs.push_back({entry.value_dtype(), {std::numeric_limits<double>::quiet_NaN()}});
    if (entry.value_dtype() == operation.task.output_dtype) operation.kind = Operation::Kind::kCopy;
  }

  void fill_merge(const MatchedTensor& tensor, Operation& operation) {
    const Slice& slice = *tensor.slice;
    merge::Task& task = operation.task;
    operation.method = static_cast<std::uint32_t>(&method_ - merge::method_table().data());
    task.base_index = slice.base;
    DType promoted = tensor.inputs[0]->usual_dtype();
    bool keep_f32 = false;
    for (const CatalogEntry* entry : tensor.inputs) {
      promoted = promote(promoted, entry->usual_dtype());
      keep_f32 = keep_f32 || entry->keep_f32;
    }
    task.output_dtype = keep_f32 ? DType::kF32 : out_dtype(promoted);
    const config::ParameterMap* shared_scopes[] = {slice.parameters, tensor.module->parameters, &config_.parameters};
    for (const merge::ParameterRow& row : method_.shared_parameters) {
      task.parameters.push_back(resolver_.resolve(row, shared_scopes, tensor.name, tensor.t, {}, config_.merge_method_line));
    }
    for (std::size_t i = 0; i < tensor.inputs.size(); ++i) {
      merge::TaskInput input;
      input.dtype = operation.sources[i].dtype;
      const SliceSource& source = slice.sources[i];
      const config::ParameterMap* scopes[] = {source.parameters, slice.parameters, tensor.module->parameters, &config_.parameters};
      const std::string own_name = input_name(tensor, i, *inputs_);
      for (const merge::ParameterRow& row : method_.model_parameters) {
        const bool is_base = static_cast<int>(i) == slice.base;
        input.parameters.push_back(is_base && !row.base_too
                                       ? std::numeric_limits<double>::quiet_NaN()
                                       : resolver_.resolve(row, scopes, own_name, tensor.t, input_of(tensor, i).label, source.line));
      }
      task.inputs.push_back(std::move(input));
    }
    if (method_.name == "passthrough" && std::isnan(task.inputs[0].parameters[0]) && task.inputs[0].dtype == task.output_dtype) {
      operation.kind = Operation::Kind::kCopy;
    }
    if (method_.check != nullptr) {
      for (const std::string& message : method_.check(task)) {
        groups_.add("check\n" + message,
                    Problem{ErrorCode::kInvalidConfig, "cannot be merged with '" + config_.merge_method + "': " + message, file_.path,
                            slice.line != 0 ? slice.line : config_.merge_method_line, tensor.name});
      }
    }
  }

  void tokenizer_problem(ErrorCode code, std::string message) {
    problems_.add(Problem{code, std::move(message), file_.path, config_.tokenizer->line, {}});
  }

  void check_tokenizer() {
    tokenizer_ = donor().checkpoint;
    if (!config_.tokenizer) return;
    const config::TokenizerConfig& wanted = *config_.tokenizer;
    if (wanted.has_token_rules) tokenizer_problem(ErrorCode::kUnsupported, "rules for single tokens ('tokens') come with a later version");
    if (wanted.source == config::TokenizerConfig::Source::kBase && !config_.base_model) {
      tokenizer_problem(ErrorCode::kInvalidConfig, "the tokenizer is to come from the base, and there is no base_model");
    }
    problems_.attempt([&] {
      if (wanted.model) tokenizer_ = &models_.get(*wanted.model);
      for (const InputModel& input : inputs_->all()) {
        const auto difference = vocabulary_difference(models_.storage(), *tokenizer_, *input.checkpoint);
        if (!difference) continue;
        tokenizer_problem(ErrorCode::kUnsupported, "merging of unlike tokenizers comes with a later version, and those of '" +
                                                       tokenizer_->directory + "' and '" + input.label + "' differ: " + *difference);
        return;
      }
    });
    const auto& json = donor().checkpoint->config;
    if (wanted.pad_to_multiple_of && json.contains("vocab_size") && json["vocab_size"].is_number_integer() &&
        json["vocab_size"].get<std::int64_t>() % *wanted.pad_to_multiple_of != 0) {
      tokenizer_problem(ErrorCode::kUnsupported, "padding the vocabulary ('pad_to_multiple_of') comes with a later version; its " +
                                                     json["vocab_size"].dump() + " rows are no multiple of " +
                                                     std::to_string(*wanted.pad_to_multiple_of));
    }
  }

  /// The first that an input has, else what DeepSeek-V3's says.
  formats::Json quantization() const {
    for (const InputModel& input : inputs_->all()) {
      const auto& config = input.checkpoint->config;
      for (const auto* part : {&config, config.contains("text_config") ? &config["text_config"] : nullptr}) {
        if (part == nullptr || !part->is_object() || !part->contains("quantization_config")) continue;
        if ((*part)["quantization_config"].is_object()) return (*part)["quantization_config"];
      }
    }
    return {{"activation_scheme", "dynamic"}, {"fmt", "e4m3"}, {"quant_method", "fp8"}, {"weight_block_size", {kScaleBlock, kScaleBlock}}};
  }

  DType prevailing_dtype() const {
    std::map<DType, std::uint64_t> bytes;
    for (const PlannedTensor& tensor : plan_.tensors) {
      if (is_arithmetic(tensor.dtype) && !tensor.name.ends_with("_scale_inv")) bytes[tensor.dtype] += tensor.size_bytes;
    }
    const auto most = std::max_element(bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
    return most == bytes.end() ? DType::kF32 : most->first;
  }

  void describe() {
    std::set<std::string> sources;
    for (const Module& module : modules_) {
      for (const Slice& slice : module.slices) {
        for (std::size_t i = 0; i < slice.sources.size(); ++i) {
          if (static_cast<int>(i) != slice.base) sources.insert((*inputs_)[slice.sources[i].model].label);
        }
      }
    }
    if (method_.inputs.max_inputs == 2 && inputs_->all().size() == 2) {
      plan_.title = config_.merge_method + " of " + short_name((*inputs_)[0].reference) + " and " + short_name((*inputs_)[1].reference);
    } else {
      const bool onto_base = method_.inputs.base != merge::Base::kIgnored && config_.base_model;
      plan_.title = config_.merge_method + " of " + std::to_string(sources.size()) + (sources.size() == 1 ? " model" : " models") +
                    (onto_base ? " onto " + short_name(*config_.base_model) : "");
    }
    plan_.config_path = file_.path;
    plan_.config_text = file_.text;
    plan_.seed = options_.seed;
    plan_.dropped = std::move(matching_.dropped);
    for (const InputModel& input : inputs_->all()) plan_.base_models.push_back(input.label);
    if (config_.dtype && config_.out_dtype && config_.dtype != config_.out_dtype) {
      plan_.notes.push_back("dtype does not change the arithmetic, which is at least float32; out_dtype decides the output");
    }
    describe_mtp();
    if (config_.out_fp8_block) {
      plan_.notes.push_back("fp8_block: " + std::to_string(num_quantised_) + " matrices are written as block-scaled FP8, " +
                            std::to_string(num_codes_copied_) + " keep their own codes and scales; the rest stays in its type");
    }
    if (num_copied_ != 0)
      plan_.notes.push_back(std::to_string(num_copied_) + " tensors of other types are copied; they must be the same in all models");
    if (truncated_)
      plan_.warnings.push_back("--unsafe-truncate-embeddings: only the first " + std::to_string(*vocabulary_rows_) +
                               " rows of the vocabulary are kept; token ids must mean the same in all models");
    for (const InputModel& input : inputs_->all()) {
      for (const std::string& note : input.checkpoint->notes) plan_.notes.push_back(input.label + ": " + note);
      for (const std::string& note : input.catalog.notes) plan_.notes.push_back(input.label + ": " + note);
      for (const std::string& difference : model::config_differences(donor().checkpoint->config, input.checkpoint->config)) {
        plan_.warnings.push_back("config.json of '" + donor().label + "' and '" + input.label + "' differ in " + difference +
                                 "; the output has the first");
      }
    }
  }

  void describe_mtp() {
    int most = 0;
    for (const InputModel& input : inputs_->all()) most = std::max(most, input.catalog.num_mtp_layers);
    const auto layers = [](int count) {
      return std::to_string(count) + (count == 1 ? " layer" : " layers") + " of multi-token prediction";
    };
    if (most == 0) {
      if (config_.mtp != config::MtpMode::kMerge) plan_.notes.push_back("mtp has no effect: no model has layers of multi-token prediction");
    } else if (matching_.num_mtp_layers == 0) {
      plan_.notes.push_back("mtp: the output has no layers of multi-token prediction; the models have up to " + std::to_string(most));
    } else if (config_.mtp == config::MtpMode::kBase) {
      plan_.notes.push_back("mtp: base: " + layers(matching_.num_mtp_layers) + " of '" + donor().label + "' as they are");
    } else {
      plan_.notes.push_back("mtp: merge: " + layers(matching_.num_mtp_layers) + " merged like the others");
    }
  }

  void add_files() {
    std::vector<std::string> notes;
    formats::Json config = output_config(donor(), modules_, matching_, prevailing_dtype(), vocabulary_rows_, notes);
    if (config_.out_fp8_block) config["quantization_config"] = quantization();
    plan_.notes.insert(plan_.notes.end(), notes.begin(), notes.end());
    plan_.auxiliary_files = auxiliary_files(*donor().checkpoint, *tokenizer_, options_);
    problems_.attempt([&] { note_tokenizer_class(models_.storage(), plan_.auxiliary_files, plan_.notes); });
    if (config_.chat_template) {
      std::vector<const formats::Checkpoint*> checkpoints;
      for (const InputModel& input : inputs_->all()) checkpoints.push_back(input.checkpoint);
      problems_.attempt([&] {
        set_chat_template(models_.storage(), *config_.chat_template, config_.chat_template_line, file_.path, checkpoints,
                          plan_.auxiliary_files, plan_.notes);
      });
    }
    plan_.auxiliary_files.push_back(
        {.action = AuxiliaryFile::Action::kWrite, .name = "config.json", .content = config.dump(2) + "\n", .source = {}, .reason = {}});
  }

  const config::ConfigFile& file_;
  MergeConfig config_;
  ModelSource& models_;
  const PlanOptions& options_;
  const AlignedLayers aligned_;
  const merge::MethodRow& method_;
  ProblemList problems_;
  GroupedProblems groups_;
  ParameterResolver resolver_;
  std::optional<InputModels> inputs_;
  std::vector<Module> modules_;
  Matching matching_;
  MergePlan plan_;
  const formats::Checkpoint* tokenizer_ = nullptr;
  std::optional<std::uint64_t> common_rows_;
  std::optional<std::uint64_t> vocabulary_rows_;
  bool truncated_ = false;
  std::size_t num_copied_ = 0;
  std::size_t num_quantised_ = 0;
  std::size_t num_codes_copied_ = 0;
};

}  // namespace

MergePlan plan_merge(const config::ConfigFile& file, config::MergeConfig config, ModelSource& models, const PlanOptions& options,
                     AlignedLayers aligned) {
  return MergePlanner(file, std::move(config), models, options, aligned).run();
}

}  // namespace moeweld::plan
