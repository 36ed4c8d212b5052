#include "model/family_tables.h"

namespace moeweld::model {
namespace {

/// Multi-head latent attention: q through a low-rank bottleneck (not in V2-Lite), k and v through another.
Rows latent_attention() {
  Rows rows = with_need(Need::kIfNull, "q_lora_rank", {{.role = "attention_q", .name = "model.layers.{layer}.self_attn.q_proj.weight"}});
  const Rows low_rank = with_need(Need::kUnlessNull, "q_lora_rank",
                                  {
                                      {.role = "attention_q_a", .name = "model.layers.{layer}.self_attn.q_a_proj.weight"},
                                      {.role = "attention_q_a_norm", .name = "model.layers.{layer}.self_attn.q_a_layernorm.weight"},
                                      {.role = "attention_q_b", .name = "model.layers.{layer}.self_attn.q_b_proj.weight"},
                                  });
  const Rows others{
      {.role = "attention_kv_a", .name = "model.layers.{layer}.self_attn.kv_a_proj_with_mqa.weight"},
      {.role = "attention_kv_a_norm", .name = "model.layers.{layer}.self_attn.kv_a_layernorm.weight"},
      {.role = "attention_kv_b", .name = "model.layers.{layer}.self_attn.kv_b_proj.weight"},
      {.role = "attention_o", .name = "model.layers.{layer}.self_attn.o_proj.weight"},
  };
  const Rows biases = optional({
      {.role = "attention_q_a_bias", .name = "model.layers.{layer}.self_attn.q_a_proj.bias"},
      {.role = "attention_kv_a_bias", .name = "model.layers.{layer}.self_attn.kv_a_proj_with_mqa.bias"},
      {.role = "attention_o_bias", .name = "model.layers.{layer}.self_attn.o_proj.bias"},
  });
  for (const Rows& more : {low_rank, others, biases}) rows.insert(rows.end(), more.begin(), more.end());
  return rows;
}

Rows shared_experts() {
  return with_need(
      Need::kIfPositive, "n_shared_experts",
      in_layers(Layers::kSparse, {
                                     {.role = "shared_gate_proj", .name = "model.layers.{layer}.mlp.shared_experts.gate_proj.weight"},
                                     {.role = "shared_up_proj", .name = "model.layers.{layer}.mlp.shared_experts.up_proj.weight"},
                                     {.role = "shared_down_proj", .name = "model.layers.{layer}.mlp.shared_experts.down_proj.weight"},
                                 }));
}

Rows experts_with_correction() {
  Rows rows = experts();
  rows.insert(rows.begin() + 1, {.role = "router_correction_bias",
                                 .name = "model.layers.{layer}.mlp.gate.e_score_correction_bias",
                                 .layers = Layers::kSparse,
                                 .keep_f32 = true});
  return rows;
}

/// A layer of multi-token prediction is a layer like the others with these around it. Embedding and head may be the model's own.
Rows mtp_rows() {
  Rows rows = in_layers(
      Layers::kMtp,
      {
          {.role = "mtp_embedding", .name = "model.layers.{layer}.embed_tokens.weight", .need = Need::kNever, .vocabulary_rows = true},
          {.role = "mtp_embedding_norm", .name = "model.layers.{layer}.enorm.weight"},
          {.role = "mtp_hidden_norm", .name = "model.layers.{layer}.hnorm.weight"},
          {.role = "mtp_projection", .name = "model.layers.{layer}.eh_proj.weight"},
          {.role = "mtp_final_norm", .name = "model.layers.{layer}.shared_head.norm.weight"},
          {.role = "mtp_head", .name = "model.layers.{layer}.shared_head.head.weight", .need = Need::kNever, .vocabulary_rows = true},
      });
  return rows;
}

Family deepseek(std::string_view name, std::string_view architecture, Rows rows) {
  Family family = make_family(name, {architecture}, std::move(rows));
  family.fused = fused_experts();
  family.num_experts_keys = {"n_routed_experts", "num_local_experts", "num_experts"};
  family.sparse_layers = SparseLayers::kAfterDense;
  return family;
}

}  // namespace

std::vector<Family> deepseek_families() {
  const Rows dense = in_layers(Layers::kDense, dense_ffn());
  std::vector<Family> result;
  result.push_back(
      deepseek("deepseek", "DeepseekForCausalLM",
               decoder({{input_norm()}, attention(), attention_biases(), {post_attention_norm()}, dense, experts(), shared_experts()})));
  result.push_back(deepseek("deepseek_v2", "DeepseekV2ForCausalLM",
                            decoder({{input_norm()}, latent_attention(), {post_attention_norm()}, dense, experts(), shared_experts()})));
  result.push_back(deepseek(
      "deepseek_v3", "DeepseekV3ForCausalLM",
      decoder(
          {{input_norm()}, latent_attention(), {post_attention_norm()}, dense, experts_with_correction(), shared_experts(), mtp_rows()})));
  result.back().num_mtp_layers_key = "num_nextn_predict_layers";
  result.back().default_dense_layers = 3;
  result.push_back(deepseek("glm4_moe", "Glm4MoeForCausalLM",
                            decoder({{input_norm()},
                                     attention(),
                                     attention_biases(),
                                     optional(head_norms()),
                                     {post_attention_norm()},
                                     dense,
                                     experts_with_correction(),
                                     shared_experts(),
                                     mtp_rows()})));
  result.back().num_mtp_layers_key = "num_nextn_predict_layers";
  result.back().default_dense_layers = 1;
  return result;
}

}  // namespace moeweld::model
