#include "model/family_tables.h"

namespace moeweld::model {
namespace {

/// On disk the experts are always fused, so the per-expert names are ours: what filters of configs see.
Rows granite_experts() {
  return in_layers(Layers::kSparse,
                   {
                       {.role = "router", .name = "model.layers.{layer}.block_sparse_moe.router.layer.weight"},
                       {.role = "expert_gate_proj", .name = "model.layers.{layer}.block_sparse_moe.experts.{expert}.gate_proj.weight"},
                       {.role = "expert_up_proj", .name = "model.layers.{layer}.block_sparse_moe.experts.{expert}.up_proj.weight"},
                       {.role = "expert_down_proj", .name = "model.layers.{layer}.block_sparse_moe.experts.{expert}.down_proj.weight"},
                   });
}

Family granite_moe(std::string_view name, std::string_view architecture, Rows rows) {
  Family family = make_family(name, {architecture}, std::move(rows));
  family.fused = {
      {.name = "model.layers.{layer}.block_sparse_moe.input_linear.weight", .roles = {"expert_gate_proj", "expert_up_proj"}},
      {.name = "model.layers.{layer}.block_sparse_moe.output_linear.weight", .roles = {"expert_down_proj"}},
  };
  family.always_fused = true;
  family.num_experts_keys = {"num_local_experts", "num_experts"};
  family.sparse_layers = SparseLayers::kAll;
  return family;
}

}  // namespace

std::vector<Family> granite_families() {
  const Rows shared =
      in_layers(Layers::kSparse, {
                                     {.role = "shared_gate_proj", .name = "model.layers.{layer}.shared_mlp.gate_proj.weight"},
                                     {.role = "shared_up_proj", .name = "model.layers.{layer}.shared_mlp.up_proj.weight"},
                                     {.role = "shared_down_proj", .name = "model.layers.{layer}.shared_mlp.output_linear.weight"},
                                 });
  std::vector<Family> result;
  result.push_back(make_family("granite", {"GraniteForCausalLM"},
                               decoder({{input_norm()}, attention(), attention_biases(), {post_attention_norm()}, dense_ffn()})));
  result.push_back(granite_moe("granitemoe", "GraniteMoeForCausalLM",
                               decoder({{input_norm()}, attention(), attention_biases(), {post_attention_norm()}, granite_experts()})));
  result.push_back(granite_moe("granitemoeshared", "GraniteMoeSharedForCausalLM",
                               decoder({{input_norm()},
                                        attention(),
                                        attention_biases(),
                                        {post_attention_norm()},
                                        granite_experts(),
                                        with_need(Need::kIfPositive, "shared_intermediate_size", shared)})));
  result.back().fused.push_back({.name = "model.layers.{layer}.shared_mlp.input_linear.weight",
                                 .roles = {"shared_gate_proj", "shared_up_proj"},
                                 .per_expert = false});
  return result;
}

}  // namespace moeweld::model
