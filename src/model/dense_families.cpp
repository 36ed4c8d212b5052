#include "model/family_tables.h"

namespace moeweld::model {

const TensorRow& input_norm() {
  static const TensorRow row{.role = "input_norm", .name = "model.layers.{layer}.input_layernorm.weight"};
  return row;
}

const TensorRow& post_attention_norm() {
  static const TensorRow row{.role = "post_attention_norm", .name = "model.layers.{layer}.post_attention_layernorm.weight"};
  return row;
}

const Rows& attention() {
  static const Rows rows{
      {.role = "attention_q", .name = "model.layers.{layer}.self_attn.q_proj.weight"},
      {.role = "attention_k", .name = "model.layers.{layer}.self_attn.k_proj.weight"},
      {.role = "attention_v", .name = "model.layers.{layer}.self_attn.v_proj.weight"},
      {.role = "attention_o", .name = "model.layers.{layer}.self_attn.o_proj.weight"},
  };
  return rows;
}

const Rows& input_biases() {
  static const Rows rows{
      {.role = "attention_q_bias", .name = "model.layers.{layer}.self_attn.q_proj.bias"},
      {.role = "attention_k_bias", .name = "model.layers.{layer}.self_attn.k_proj.bias"},
      {.role = "attention_v_bias", .name = "model.layers.{layer}.self_attn.v_proj.bias"},
  };
  return rows;
}

const Rows& attention_biases() {
  static const Rows rows = [] {
    Rows result = input_biases();
    result.push_back({.role = "attention_o_bias", .name = "model.layers.{layer}.self_attn.o_proj.bias"});
    return optional(std::move(result));
  }();
  return rows;
}

const Rows& head_norms() {
  static const Rows rows{
      {.role = "attention_q_norm", .name = "model.layers.{layer}.self_attn.q_norm.weight"},
      {.role = "attention_k_norm", .name = "model.layers.{layer}.self_attn.k_norm.weight"},
  };
  return rows;
}

const Rows& dense_ffn() {
  static const Rows rows{
      {.role = "mlp_gate_proj", .name = "model.layers.{layer}.mlp.gate_proj.weight"},
      {.role = "mlp_up_proj", .name = "model.layers.{layer}.mlp.up_proj.weight"},
      {.role = "mlp_down_proj", .name = "model.layers.{layer}.mlp.down_proj.weight"},
  };
  return rows;
}

Rows optional(Rows rows) {
  for (TensorRow& row : rows) row.need = Need::kNever;
  return rows;
}

Rows in_layers(Layers layers, Rows rows) {
  for (TensorRow& row : rows) row.layers = layers;
  return rows;
}

Rows with_need(Need need, std::string_view key, Rows rows) {
  for (TensorRow& row : rows) {
    row.need = need;
    row.key = key;
  }
  return rows;
}

Rows decoder(std::initializer_list<Rows> layer_parts) {
  Rows rows{
      {.role = "token_embedding", .name = "model.embed_tokens.weight", .place = Place::kBeforeLayers, .vocabulary_rows = true},
  };
  for (const Rows& part : layer_parts) rows.insert(rows.end(), part.begin(), part.end());
  rows.push_back({.role = "final_norm", .name = "model.norm.weight", .place = Place::kAfterLayers});
  rows.push_back(
      {.role = "lm_head", .name = "lm_head.weight", .place = Place::kAfterLayers, .need = Need::kNever, .vocabulary_rows = true});
  return rows;
}

Family make_family(std::string_view name, std::vector<std::string_view> architectures, Rows rows) {
  Family family;
  family.name = name;
  family.architectures = std::move(architectures);
  family.model_type = name;
  family.tensors = std::move(rows);
  family.derived = {"rotary_emb.inv_freq"};
  return family;
}

std::vector<Family> dense_families() {
  const Rows ffn_biases = optional({
      {.role = "mlp_gate_proj_bias", .name = "model.layers.{layer}.mlp.gate_proj.bias"},
      {.role = "mlp_up_proj_bias", .name = "model.layers.{layer}.mlp.up_proj.bias"},
      {.role = "mlp_down_proj_bias", .name = "model.layers.{layer}.mlp.down_proj.bias"},
  });
  std::vector<Family> result;
  result.push_back(
      make_family("llama", {"LlamaForCausalLM"},
                  decoder({{input_norm()}, attention(), attention_biases(), {post_attention_norm()}, dense_ffn(), ffn_biases})));
  result.push_back(
      make_family("mistral", {"MistralForCausalLM"}, decoder({{input_norm()}, attention(), {post_attention_norm()}, dense_ffn()})));
  result.push_back(make_family("qwen2", {"Qwen2ForCausalLM"},
                               decoder({{input_norm()}, attention(), input_biases(), {post_attention_norm()}, dense_ffn()})));
  result.push_back(
      make_family("qwen3", {"Qwen3ForCausalLM"},
                  decoder({{input_norm()}, attention(), attention_biases(), head_norms(), {post_attention_norm()}, dense_ffn()})));
  return result;
}

}  // namespace moeweld::model
