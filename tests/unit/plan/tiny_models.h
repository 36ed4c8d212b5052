#pragma once
/// Real model directories of a few kilobytes, and configurations over them: what planners are tested with.

#include <algorithm>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "moeweld/config/merge_config.h"
#include "moeweld/formats/safetensors.h"
#include "moeweld/merge/method.h"
#include "moeweld/plan/extraction.h"
#include "moeweld/plan/merge_plan.h"
#include "moeweld/plan/planner.h"
#include "unit/temporary_directory.h"

namespace moeweld::plan {

/// A Llama, or a Mixtral with num_experts > 0. All data is zero.
struct TinyModel {
  int num_layers = 2;
  std::uint64_t hidden = 4;
  std::uint64_t ffn = 6;
  std::uint64_t vocabulary = 10;
  bool has_head = true;
  int num_experts = 0;
  DType dtype = DType::kBF16;
  std::string architecture = {};             ///< empty: LlamaForCausalLM or MixtralForCausalLM
  std::map<std::string, DType> dtypes = {};  ///< of single tensors
  std::vector<formats::TensorLayout> extra = {};
  formats::Json config = formats::Json::object();  ///< put over the usual one
};

inline std::vector<formats::TensorLayout> tensors_of(const TinyModel& model) {
  std::vector<formats::TensorLayout> result;
  const auto add = [&](const std::string& name, Shape shape) {
    const auto dtype = model.dtypes.find(name);
    result.push_back({name, dtype == model.dtypes.end() ? model.dtype : dtype->second, std::move(shape)});
  };
  const std::uint64_t hidden = model.hidden;
  add("model.embed_tokens.weight", {model.vocabulary, hidden});
  for (int layer = 0; layer < model.num_layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    add(prefix + "input_layernorm.weight", {hidden});
    for (const char* matrix : {"q_proj", "k_proj", "v_proj", "o_proj"}) add(prefix + "self_attn." + matrix + ".weight", {hidden, hidden});
    add(prefix + "post_attention_layernorm.weight", {hidden});
    if (model.num_experts == 0) {
      add(prefix + "mlp.gate_proj.weight", {model.ffn, hidden});
      add(prefix + "mlp.up_proj.weight", {model.ffn, hidden});
      add(prefix + "mlp.down_proj.weight", {hidden, model.ffn});
      continue;
    }
    const auto experts = static_cast<std::uint64_t>(model.num_experts);
    add(prefix + "block_sparse_moe.gate.weight", {experts, hidden});
    for (int expert = 0; expert < model.num_experts; ++expert) {
      const std::string own = prefix + "block_sparse_moe.experts." + std::to_string(expert) + ".";
      add(own + "w1.weight", {model.ffn, hidden});
      add(own + "w2.weight", {hidden, model.ffn});
      add(own + "w3.weight", {model.ffn, hidden});
    }
  }
  add("model.norm.weight", {hidden});
  if (model.has_head) add("lm_head.weight", {model.vocabulary, hidden});
  result.insert(result.end(), model.extra.begin(), model.extra.end());
  std::stable_sort(result.begin(), result.end(), [](const auto& a, const auto& b) { return size_bytes(a.dtype) > size_bytes(b.dtype); });
  return result;
}

inline formats::Json config_of(const TinyModel& model) {
  const bool sparse = model.num_experts > 0;
  const std::string architecture = !model.architecture.empty() ? model.architecture : sparse ? "MixtralForCausalLM" : "LlamaForCausalLM";
  formats::Json config = {{"architectures", {architecture}},
                          {"model_type", sparse ? "mixtral" : "llama"},
                          {"num_hidden_layers", model.num_layers},
                          {"hidden_size", model.hidden},
                          {"intermediate_size", model.ffn},
                          {"num_attention_heads", 2},
                          {"num_key_value_heads", 2},
                          {"vocab_size", model.vocabulary},
                          {"rms_norm_eps", 1e-5},
                          {"tie_word_embeddings", !model.has_head},
                          {"torch_dtype", "bfloat16"}};
  if (sparse) {
    config["num_local_experts"] = model.num_experts;
    config["num_experts_per_tok"] = 1;
  }
  config.update(model.config);
  return config;
}

inline std::vector<config::MethodInfo> method_infos() {
  std::vector<config::MethodInfo> result;
  for (const merge::MethodRow& method : merge::method_table()) {
    if (method.internal) continue;
    config::MethodInfo info{.name = std::string(method.name), .parameters = {}};
    for (const auto& row : method.shared_parameters) info.parameters.push_back({std::string(row.name), false});
    for (const auto& row : method.model_parameters) info.parameters.push_back({std::string(row.name), true});
    result.push_back(std::move(info));
  }
  return result;
}

/// A directory of models. In configurations "$" stands for it: "$/a" is the model written as "a".
class Workshop {
 public:
  void write(const std::string& name, const TinyModel& model) const { write(name, tensors_of(model), config_of(model)); }
  void write(const std::string& name, const std::vector<formats::TensorLayout>& tensors, const formats::Json& config) const {
    const std::string header = formats::serialize_safetensors_header(tensors);
    std::uint64_t size = header.size();
    for (const auto& tensor : tensors) size += num_elements(tensor.shape) * size_bytes(tensor.dtype);
    std::filesystem::resize_file(directory_.write(name + "/model.safetensors", header), size);
    directory_.write(name + "/config.json", config.dump());
  }
  /// Any other file of a model.
  void write_file(const std::string& name, const std::string& content) const { directory_.write(name, content); }
  /// A plan's output files become a model's, with their headers and data of zero, and its config.json.
  void write_output(const std::string& name, const MergePlan& plan) const {
    for (const PlannedOutputFile& file : plan.output_files) {
      std::filesystem::resize_file(directory_.write(name + "/" + file.name, file.header), file.size_bytes);
    }
    for (const AuxiliaryFile& file : plan.auxiliary_files) {
      if (file.action == AuxiliaryFile::Action::kWrite) directory_.write(name + "/" + file.name, file.content);
    }
  }

  std::string path(const std::string& name) const { return directory_ / name; }
  std::string at_home(std::string text) const {
    for (std::size_t at = text.find('$'); at != std::string::npos; at = text.find('$', at)) {
      text.replace(at, 1, directory_.path());
      at += directory_.path().size();
    }
    return text;
  }

  MergePlan plan(const std::string& yaml, const PlanOptions& options = {}) const {
    ModelSource models(*storage_, {});
    return make_plan(config::parse_config(at_home(yaml), "merge.yml", method_infos(), {}), models, options);
  }
  MergePlan extraction(const std::string& name, const std::vector<int>& experts, const PlanOptions& options = {}) const {
    return extraction(name, Extraction{.what = Extraction::What::kExpert, .experts = experts}, options);
  }
  MergePlan extraction(const std::string& name, const Extraction& extraction, const PlanOptions& options = {}) const {
    ModelSource models(*storage_, {});
    config::ModelReference reference;
    reference.path = path(name);
    return make_extraction_plan(reference, extraction, models, options);
  }

 private:
  TemporaryDirectory directory_;
  std::shared_ptr<Storage> storage_ = make_posix_storage();
};

inline bool has_operation(const MergePlan& plan, std::string_view name) {
  return std::any_of(plan.operations.begin(), plan.operations.end(), [&](const Operation& operation) { return operation.name == name; });
}

inline const Operation& operation_named(const MergePlan& plan, std::string_view name) {
  for (const Operation& operation : plan.operations) {
    if (operation.name == name) return operation;
  }
  throw std::runtime_error("no operation " + std::string(name));
}

inline const PlannedTensor& tensor_named(const MergePlan& plan, std::string_view name) {
  for (const PlannedTensor& tensor : plan.tensors) {
    if (tensor.name == name) return tensor;
  }
  throw std::runtime_error("no tensor " + std::string(name));
}

inline std::size_t row_index(const std::vector<merge::ParameterRow>& rows, std::string_view name) {
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].name == name) return i;
  }
  throw std::runtime_error("no parameter " + std::string(name));
}

/// A shared parameter of the operation for `tensor`.
inline double shared_parameter(const MergePlan& plan, std::string_view tensor, std::string_view name) {
  const Operation& operation = operation_named(plan, tensor);
  return operation.task.parameters.at(row_index(merge::method_table()[operation.method].shared_parameters, name));
}

/// A parameter of input `input` of the operation for `tensor`.
inline double model_parameter(const MergePlan& plan, std::string_view tensor, std::size_t input, std::string_view name) {
  const Operation& operation = operation_named(plan, tensor);
  return operation.task.inputs.at(input).parameters.at(row_index(merge::method_table()[operation.method].model_parameters, name));
}

/// Name of the tensor that a source is the first byte of, read back from the input file's own header; "model:name".
inline std::string source_name(const MergePlan& plan, const SourceView& source) {
  const std::string& path = plan.input_files.at(source.file).path;
  const auto storage = make_posix_storage();
  const std::string directory = std::filesystem::path(path).parent_path().string();
  const formats::Checkpoint checkpoint = formats::read_checkpoint(*storage, directory);
  for (const auto& tensor : checkpoint.tensors) {
    if (checkpoint.files[tensor.file].path == path && tensor.begin == source.begin &&
        tensor.size_bytes == source.num_elements * size_bytes(source.dtype)) {
      return std::filesystem::path(directory).filename().string() + ":" + tensor.name;
    }
  }
  return "nothing at byte " + std::to_string(source.begin) + " of " + path;
}

inline std::vector<std::string> source_names(const MergePlan& plan, std::string_view operation) {
  std::vector<std::string> result;
  for (const SourceView& source : operation_named(plan, operation).sources) result.push_back(source_name(plan, source));
  return result;
}

inline formats::Json output_config_of(const MergePlan& plan) {
  for (const AuxiliaryFile& file : plan.auxiliary_files) {
    if (file.name == "config.json") return formats::Json::parse(file.content);
  }
  throw std::runtime_error("no config.json");
}

}  // namespace moeweld::plan
