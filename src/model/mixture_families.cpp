#include "model/family_tables.h"

namespace moeweld::model {

const Rows& experts() {
  static const Rows rows =
      in_layers(Layers::kSparse, {
                                     {.role = "router", .name = "model.layers.{layer}.mlp.gate.weight"},
                                     {.role = "expert_gate_proj", .name = "model.layers.{layer}.mlp.experts.{expert}.gate_proj.weight"},
                                     {.role = "expert_up_proj", .name = "model.layers.{layer}.mlp.experts.{expert}.up_proj.weight"},
                                     {.role = "expert_down_proj", .name = "model.layers.{layer}.mlp.experts.{expert}.down_proj.weight"},
                                 });
  return rows;
}

const Rows& block_sparse_experts() {
  static const Rows rows = in_layers(
      Layers::kSparse, {
                           {.role = "router", .name = "model.layers.{layer}.block_sparse_moe.gate.weight"},
                           {.role = "expert_gate_proj", .name = "model.layers.{layer}.block_sparse_moe.experts.{expert}.w1.weight"},
                           {.role = "expert_down_proj", .name = "model.layers.{layer}.block_sparse_moe.experts.{expert}.w2.weight"},
                           {.role = "expert_up_proj", .name = "model.layers.{layer}.block_sparse_moe.experts.{expert}.w3.weight"},
                       });
  return rows;
}

std::vector<FusedRow> fused_experts() {
  return {
      {.name = "model.layers.{layer}.mlp.experts.gate_up_proj", .roles = {"expert_gate_proj", "expert_up_proj"}},
      {.name = "model.layers.{layer}.mlp.experts.down_proj", .roles = {"expert_down_proj"}},
  };
}

namespace {

Family mixture(std::string_view name, std::vector<std::string_view> architectures, Rows rows,
               std::vector<std::string_view> num_experts_keys, SparseLayers sparse_layers) {
  Family family = make_family(name, std::move(architectures), std::move(rows));
  family.fused = fused_experts();
  family.num_experts_keys = std::move(num_experts_keys);
  family.sparse_layers = sparse_layers;
  return family;
}

Family mixtral() {
  Family family =
      mixture("mixtral", {"MixtralForCausalLM"}, decoder({{input_norm()}, attention(), {post_attention_norm()}, block_sparse_experts()}),
              {"num_local_experts", "num_experts"}, SparseLayers::kAll);
  family.fused_names = {{.role = "router", .name = "model.layers.{layer}.mlp.gate.weight"}};
  return family;
}

Family qwen2_moe() {
  const Rows shared =
      in_layers(Layers::kSparse, {
                                     {.role = "shared_gate_proj", .name = "model.layers.{layer}.mlp.shared_expert.gate_proj.weight"},
                                     {.role = "shared_up_proj", .name = "model.layers.{layer}.mlp.shared_expert.up_proj.weight"},
                                     {.role = "shared_down_proj", .name = "model.layers.{layer}.mlp.shared_expert.down_proj.weight"},
                                     {.role = "shared_expert_gate", .name = "model.layers.{layer}.mlp.shared_expert_gate.weight"},
                                 });
  return mixture("qwen2_moe", {"Qwen2MoeForCausalLM"},
                 decoder({{input_norm()},
                          attention(),
                          with_need(Need::kUnlessFalse, "qkv_bias", input_biases()),
                          {post_attention_norm()},
                          in_layers(Layers::kDense, dense_ffn()),
                          experts(),
                          shared}),
                 {"num_experts", "num_local_experts"}, SparseLayers::kSparseStep);
}

Family qwen3_moe() {
  return mixture("qwen3_moe", {"Qwen3MoeForCausalLM"},
                 decoder({{input_norm()},
                          attention(),
                          attention_biases(),
                          head_norms(),
                          {post_attention_norm()},
                          in_layers(Layers::kDense, dense_ffn()),
                          experts()}),
                 {"num_experts", "num_local_experts"}, SparseLayers::kSparseStep);
}

/// Its q_norm and k_norm span the full width, not one head.
Family olmoe() {
  return mixture("olmoe", {"OlmoeForCausalLM"},
                 decoder({{input_norm()}, attention(), attention_biases(), head_norms(), {post_attention_norm()}, experts()}),
                 {"num_experts", "num_local_experts"}, SparseLayers::kAll);
}

/// Its norms are LayerNorms with biases.
Family phimoe() {
  Rows rows =
      decoder({{input_norm(), {.role = "input_norm_bias", .name = "model.layers.{layer}.input_layernorm.bias"}},
               attention(),
               attention_biases(),
               {post_attention_norm(), {.role = "post_attention_norm_bias", .name = "model.layers.{layer}.post_attention_layernorm.bias"}},
               block_sparse_experts()});
  rows.push_back({.role = "final_norm_bias", .name = "model.norm.bias", .place = Place::kAfterLayers});
  rows.push_back(
      {.role = "lm_head_bias", .name = "lm_head.bias", .place = Place::kAfterLayers, .need = Need::kNever, .vocabulary_rows = true});
  Family family = mixture("phimoe", {"PhiMoEForCausalLM", "PhimoeForCausalLM"}, std::move(rows), {"num_local_experts", "num_experts"},
                          SparseLayers::kAll);
  family.fused_names = {{.role = "router", .name = "model.layers.{layer}.mlp.router.weight"}};
  return family;
}

/// Its q_norm and k_norm span the full width, not one head.
Family minimax_m2() {
  Rows rows = block_sparse_experts();
  rows.insert(rows.begin() + 1, {.role = "router_correction_bias",
                                 .name = "model.layers.{layer}.block_sparse_moe.e_score_correction_bias",
                                 .layers = Layers::kSparse,
                                 .need = Need::kUnlessFalse,
                                 .key = "use_routing_bias",
                                 .keep_f32 = true});
  Family family = mixture(
      "minimax_m2", {"MiniMaxM2ForCausalLM"},
      decoder({{input_norm()}, attention(), with_need(Need::kUnlessFalse, "use_qk_norm", head_norms()), {post_attention_norm()}, rows}),
      {"num_local_experts", "num_experts"}, SparseLayers::kAll);
  family.fused_names = {{.role = "router", .name = "model.layers.{layer}.mlp.gate.weight"},
                        {.role = "router_correction_bias", .name = "model.layers.{layer}.mlp.e_score_correction_bias"}};
  return family;
}

}  // namespace

std::vector<Family> mixture_families() { return {mixtral(), qwen2_moe(), qwen3_moe(), olmoe(), phimoe(), minimax_m2()}; }

}  // namespace moeweld::model
