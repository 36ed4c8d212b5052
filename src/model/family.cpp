#include "moeweld/model/family.h"

#include <algorithm>
#include <array>

#include "model/tensor_name.h"

namespace moeweld::model {
namespace {

using Rows = std::vector<TensorRow>;

const TensorRow kTokenEmbedding{
    .role = "token_embedding", .name = "model.embed_tokens.weight", .place = Place::kBeforeLayers, .vocabulary_rows = true};
const TensorRow kFinalNorm{.role = "final_norm", .name = "model.norm.weight", .place = Place::kAfterLayers};
const TensorRow kHead{.role = "lm_head", .name = "lm_head.weight", .place = Place::kAfterLayers, .optional = true, .vocabulary_rows = true};
const TensorRow kInputNorm{.role = "input_norm", .name = "model.layers.{layer}.input_layernorm.weight"};
const TensorRow kPostAttentionNorm{.role = "post_attention_norm", .name = "model.layers.{layer}.post_attention_layernorm.weight"};

const Rows kAttention{
    {.role = "attention_q", .name = "model.layers.{layer}.self_attn.q_proj.weight"},
    {.role = "attention_k", .name = "model.layers.{layer}.self_attn.k_proj.weight"},
    {.role = "attention_v", .name = "model.layers.{layer}.self_attn.v_proj.weight"},
    {.role = "attention_o", .name = "model.layers.{layer}.self_attn.o_proj.weight"},
};
const Rows kInputBiases{
    {.role = "attention_q_bias", .name = "model.layers.{layer}.self_attn.q_proj.bias"},
    {.role = "attention_k_bias", .name = "model.layers.{layer}.self_attn.k_proj.bias"},
    {.role = "attention_v_bias", .name = "model.layers.{layer}.self_attn.v_proj.bias"},
};
const TensorRow kOutputBias{.role = "attention_o_bias", .name = "model.layers.{layer}.self_attn.o_proj.bias", .optional = true};
const Rows kHeadNorms{
    {.role = "attention_q_norm", .name = "model.layers.{layer}.self_attn.q_norm.weight"},
    {.role = "attention_k_norm", .name = "model.layers.{layer}.self_attn.k_norm.weight"},
};
const Rows kDenseFfn{
    {.role = "mlp_gate_proj", .name = "model.layers.{layer}.mlp.gate_proj.weight"},
    {.role = "mlp_up_proj", .name = "model.layers.{layer}.mlp.up_proj.weight"},
    {.role = "mlp_down_proj", .name = "model.layers.{layer}.mlp.down_proj.weight"},
};
const Rows kDenseFfnBiases{
    {.role = "mlp_gate_proj_bias", .name = "model.layers.{layer}.mlp.gate_proj.bias", .optional = true},
    {.role = "mlp_up_proj_bias", .name = "model.layers.{layer}.mlp.up_proj.bias", .optional = true},
    {.role = "mlp_down_proj_bias", .name = "model.layers.{layer}.mlp.down_proj.bias", .optional = true},
};
const Rows kMixtralFfn{
    {.role = "router", .name = "model.layers.{layer}.block_sparse_moe.gate.weight"},
    {.role = "expert_gate_proj", .name = "model.layers.{layer}.block_sparse_moe.experts.{expert}.w1.weight"},
    {.role = "expert_down_proj", .name = "model.layers.{layer}.block_sparse_moe.experts.{expert}.w2.weight"},
    {.role = "expert_up_proj", .name = "model.layers.{layer}.block_sparse_moe.experts.{expert}.w3.weight"},
};

Rows optional(Rows rows) {
  for (TensorRow& row : rows) row.optional = true;
  return rows;
}

Rows decoder(std::initializer_list<Rows> layer_parts) {
  Rows rows{kTokenEmbedding};
  for (const Rows& part : layer_parts) rows.insert(rows.end(), part.begin(), part.end());
  rows.push_back(kFinalNorm);
  rows.push_back(kHead);
  return rows;
}

Family dense(std::string_view name, std::string_view architecture, Rows rows) {
  Family family;
  family.name = name;
  family.architectures = {architecture};
  family.model_type = name;
  family.tensors = std::move(rows);
  family.derived = {"rotary_emb.inv_freq"};
  return family;
}

std::vector<Family> make_families() {
  std::vector<Family> result;
  result.push_back(
      dense("llama", "LlamaForCausalLM",
            decoder({{kInputNorm}, kAttention, optional(kInputBiases), {kOutputBias}, {kPostAttentionNorm}, kDenseFfn, kDenseFfnBiases})));
  result.push_back(dense("mistral", "MistralForCausalLM", decoder({{kInputNorm}, kAttention, {kPostAttentionNorm}, kDenseFfn})));
  result.push_back(dense("qwen2", "Qwen2ForCausalLM", decoder({{kInputNorm}, kAttention, kInputBiases, {kPostAttentionNorm}, kDenseFfn})));
  result.push_back(
      dense("qwen3", "Qwen3ForCausalLM",
            decoder({{kInputNorm}, kAttention, optional(kInputBiases), {kOutputBias}, kHeadNorms, {kPostAttentionNorm}, kDenseFfn})));

  Family mixtral = dense("mixtral", "MixtralForCausalLM", decoder({{kInputNorm}, kAttention, {kPostAttentionNorm}, kMixtralFfn}));
  mixtral.num_experts_key = "num_local_experts";
  mixtral.fused = {
      {.name = "model.layers.{layer}.mlp.experts.gate_up_proj", .roles = {"expert_gate_proj", "expert_up_proj"}},
      {.name = "model.layers.{layer}.mlp.experts.down_proj", .roles = {"expert_down_proj"}},
  };
  mixtral.fused_names = {{.role = "router", .name = "model.layers.{layer}.mlp.gate.weight"}};
  result.push_back(std::move(mixtral));
  return result;
}

}  // namespace

std::span<const Family> families() {
  static const std::vector<Family> table = make_families();
  return table;
}

const Family* find_family(std::string_view architecture) {
  for (const Family& family : families()) {
    if (std::find(family.architectures.begin(), family.architectures.end(), architecture) != family.architectures.end()) return &family;
  }
  return nullptr;
}

std::string tensor_name(const Family* family, const TensorKey& key) {
  if (family != nullptr) {
    for (const TensorRow& row : family->tensors) {
      if (row.role == key.role) return fill_pattern(row.name, key.layer, key.expert);
    }
  }
  return fill_pattern(key.role, key.layer, key.expert);
}

}  // namespace moeweld::model
