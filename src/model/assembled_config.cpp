#include "moeweld/model/assembled_config.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "model/config_fields.h"
#include "model/decoder_config.h"

namespace moeweld::model {
namespace {

struct Assembly {
  std::string_view output;
  std::array<std::string_view, 3> sources;
};
constexpr std::array<Assembly, 5> kAssemblies{{
    {"mixtral", {"llama", "mistral", {}}},
    {"qwen2_moe", {"llama", "mistral", "qwen2"}},
    {"qwen3_moe", {"qwen3", {}, {}}},
    {"deepseek", {"llama", "mistral", {}}},
    {"granitemoeshared", {"llama", "mistral", {}}},
}};

const Assembly* find_assembly(std::string_view output) {
  const auto found = std::find_if(kAssemblies.begin(), kAssemblies.end(), [&](const Assembly& row) { return row.output == output; });
  return found == kAssemblies.end() ? nullptr : &*found;
}

bool has_source(const Assembly& row, std::string_view source) {
  return !source.empty() && std::find(row.sources.begin(), row.sources.end(), source) != row.sources.end();
}

std::string described(const std::vector<bool>& sparse) {
  std::string text;
  int listed = 0;
  for (std::size_t layer = 0; layer < sparse.size(); ++layer) {
    if (!sparse[layer]) continue;
    if (++listed > 12) return text + ", …";
    text += (text.empty() ? "" : ", ") + std::to_string(layer);
  }
  return text;
}

/// first_k_dense_replace and moe_layer_freq: layer l is sparse where l >= first and l % step == 0.
formats::Json first_and_step(const Family& output, const std::vector<bool>& sparse) {
  const auto first = static_cast<std::size_t>(std::find(sparse.begin(), sparse.end(), true) - sparse.begin());
  for (std::size_t step = 1; step <= sparse.size(); ++step) {
    std::size_t layer = 0;
    while (layer < sparse.size() && sparse[layer] == (layer >= first && layer % step == 0)) ++layer;
    if (layer == sparse.size()) return {{"first_k_dense_replace", first}, {"moe_layer_freq", step}};
  }
  throw Error(ErrorCode::kUnsupported,
              "A " + std::string(output.architectures.front()) +
                  " has experts in every n-th layer from a first one on (first_k_dense_replace, moe_layer_freq), which "
                  "cannot say layers " +
                  described(sparse) + ".");
}

double rope_factor(const Rope& rope) {
  const auto factor = number_field(rope.scaling, "factor");
  return factor.value_or(0);
}

void change_rope(RopeMode mode, DecoderConfig& decoder, ProblemList& problems, std::vector<std::string>& notes) {
  if (mode == RopeMode::kKeep) return;
  Rope& rope = decoder.rope;
  const char* name = mode == RopeMode::kFoldTheta ? "fold_theta" : "ntk";
  if (rope.scaling.is_null()) {
    notes.push_back("rope: " + std::string(name) + " changes nothing: the base's rope is not scaled.");
    return;
  }
  const std::string type = text_field(rope.scaling, "rope_type");
  const bool fits = type == "linear" || (mode == RopeMode::kNtk && type == "dynamic");
  if (!fits || !(rope_factor(rope) > 0) || (mode == RopeMode::kNtk && decoder.head_dim <= 2)) {
    problems.add({ErrorCode::kUnsupported,
                  "config.json: rope_scaling is " + rope.scaling.dump() + ", but rope: " + name + " replaces " +
                      (mode == RopeMode::kFoldTheta ? "linear" : "linear or dynamic") + " scaling by a factor only. Use rope: keep.",
                  {},
                  0,
                  {}});
    return;
  }
  const double factor = rope_factor(rope);
  const auto d = static_cast<double>(decoder.head_dim);
  const double theta = mode == RopeMode::kFoldTheta ? rope.theta * factor : rope.theta * std::pow(factor, d / (d - 2));
  notes.push_back("config.json: rope_theta " + plain_number(rope.theta).dump() + " with " + type + " scaling " +
                  plain_number(factor).dump() + " became rope_theta " + plain_number(theta).dump() + ", an approximation.");
  rope.theta = theta;
  rope.scaling = nullptr;
}

void check_shared(const Family& output, const AssembledShape& shape, ProblemList& problems) {
  const auto refuse = [&](const std::string& but) {
    problems.add({ErrorCode::kUnsupported, "A " + std::string(output.architectures.front()) + " " + but + ".", {}, 0, {}});
  };
  if (output.name == "qwen2_moe") {
    if (shape.shared_width == 0) {
      refuse("always has a shared expert; name one under shared_experts");
    } else if (!shape.shared_gated) {
      refuse("has a gate for its shared expert");
    }
    return;
  }
  if (shape.shared_width == 0) return;
  if (output.name != "deepseek" && output.name != "granitemoeshared") return refuse("has no shared experts");
  if (shape.shared_gated) refuse("has no gate for its shared experts");
  if (output.name == "deepseek" && shape.shared_width % shape.expert_width != 0) {
    refuse("has shared experts of a multiple of the experts' width; theirs is " + std::to_string(shape.shared_width) +
           ", that of an expert " + std::to_string(shape.expert_width));
  }
}

void write_experts(const Family& output, const AssembledShape& shape, Json& config, std::vector<std::string>& notes) {
  config[std::string(output.num_experts_keys.front())] = shape.num_experts;
  config["num_experts_per_tok"] = shape.experts_per_token;
  if (output.name == "mixtral" || output.name == "granitemoeshared") {
    config["intermediate_size"] = shape.expert_width;
  } else {
    config["moe_intermediate_size"] = shape.expert_width;
    config["norm_topk_prob"] = true;
  }
  if (output.name == "granitemoeshared") config["shared_intermediate_size"] = shape.shared_width;
  if (output.name == "qwen2_moe") {
    config["shared_expert_intermediate_size"] = shape.shared_width;
    notes.push_back("llama.cpp does not renormalise a Qwen2-MoE's top-k (it ignores norm_topk_prob: true), so it computes something else.");
  }
  if (output.name == "deepseek") {
    config["n_shared_experts"] = shape.shared_width == 0 ? Json(nullptr) : Json(shape.shared_width / shape.expert_width);
    config["scoring_func"] = "softmax";
    config["aux_loss_alpha"] = 0.001;
    config["seq_aux"] = true;
    config["pretraining_tp"] = 1;
    notes.push_back(
        "transformers has no DeepSeek v1 of its own: it needs configuration_deepseek.py and modeling_deepseek.py of a released model in "
        "the "
        "directory, and their auto_map in config.json.");
  } else {
    config["output_router_logits"] = false;
    config["router_aux_loss_coef"] = 0.001;
  }
  if (output.name == "mixtral") config["router_jitter_noise"] = 0.0;
}

}  // namespace

bool is_assembled_from(const Family& output, const Family& source) {
  const Assembly* row = find_assembly(output.name);
  return row != nullptr && has_source(*row, source.name);
}

Json sparse_layer_fields(const Family& output, const std::vector<bool>& sparse) {
  const auto num_sparse = std::count(sparse.begin(), sparse.end(), true);
  if (num_sparse == 0) throw Error(ErrorCode::kUnsupported, "No layer is to have experts; at least one must.");
  switch (output.sparse_layers) {
    case SparseLayers::kAfterDense:
      return first_and_step(output, sparse);
    case SparseLayers::kSparseStep: {
      Json dense = Json::array();
      for (std::size_t layer = 0; layer < sparse.size(); ++layer) {
        if (!sparse[layer]) dense.push_back(layer);
      }
      return {{"decoder_sparse_step", 1}, {"mlp_only_layers", std::move(dense)}};
    }
    default:
      if (num_sparse == static_cast<std::ptrdiff_t>(sparse.size())) return Json::object();
      throw Error(ErrorCode::kUnsupported, "All layers of a " + std::string(output.architectures.front()) +
                                               " have experts, but only layers " + described(sparse) + " are to.");
  }
}

Json assembled_config(const Family& output, const Json& dense_base, const AssembledShape& shape, RopeMode rope,
                      std::vector<std::string>& notes) {
  const std::string source = text_field(dense_base, "model_type");
  const Assembly* row = find_assembly(output.name);
  if (row == nullptr || !has_source(*row, source)) {
    throw Error(ErrorCode::kUnsupported,
                "config.json: model_type is '" + source + "', of which no " + std::string(output.architectures.front()) + " is assembled.");
  }
  ProblemList problems;
  DecoderConfig decoder = read_decoder_config(dense_base);
  if (shape.sparse_layers.size() != static_cast<std::size_t>(decoder.num_layers)) {
    throw Error(ErrorCode::kInvalidInput, "config.json: 'num_hidden_layers' is " + std::to_string(decoder.num_layers) +
                                              ", but the base has " + std::to_string(shape.sparse_layers.size()) + " layers.");
  }
  change_rope(rope, decoder, problems, notes);
  Json config = write_decoder_config(decoder, output, problems, notes);
  check_shared(output, shape, problems);
  Json layers;
  problems.attempt([&] { layers = sparse_layer_fields(output, shape.sparse_layers); });
  problems.throw_if_any();
  if (output.name == "qwen2_moe" && decoder.attention_bias == DecoderConfig::AttentionBias::kNone) {
    notes.push_back("a Qwen2-MoE has biases of q, k and v, which the base has not: they are zeros.");
  }
  if (output.name.starts_with("qwen") && decoder.sliding_window > 0) {
    notes.push_back(
        "config.json: sliding_window is kept as Qwen's use_sliding_window, which vLLM and llama.cpp may ignore for this family.");
  }
  note_what_is_left(dense_base, config, {}, notes);
  write_experts(output, shape, config, notes);
  config.update(layers);
  return config;
}

std::string rope_warning(const Json& dense_base, RopeMode mode) {
  const Rope rope = read_rope(dense_base, default_rope_theta(dense_base));
  if (rope.scaling.is_null()) return {};
  const std::string scaling = text_field(rope.scaling, "rope_type") + " scaling" +
                              (rope_factor(rope) > 0 ? " by " + plain_number(rope_factor(rope)).dump() : std::string());
  if (mode == RopeMode::kKeep) {
    return "the base's rope has " + scaling +
           ", which is kept: transformers 4 and 5, vLLM and llama.cpp of today honour it. Programs that ignore rope_scaling in a mixture "
           "need "
           "rope: fold_theta (or ntk), an approximation.";
  }
  return "the base's rope has " + scaling + ", which rope: " + (mode == RopeMode::kFoldTheta ? "fold_theta" : "ntk") +
         " turns into another rope_theta, for programs that ignore rope_scaling. That is an approximation: transformers 4 and 5, vLLM and "
         "llama.cpp of today compute the base's own rope with rope: keep.";
}

}  // namespace moeweld::model
