#include "moeweld/model/extracted_config.h"

#include <array>
#include <set>
#include <utility>

#include "model/config_fields.h"
#include "model/decoder_config.h"

namespace moeweld::model {
namespace {

/// Mixture → architecture of its dense twin.
constexpr std::array<std::pair<std::string_view, std::string_view>, 7> kTwins{{
    {"mixtral", "MistralForCausalLM"},
    {"qwen2_moe", "Qwen2ForCausalLM"},
    {"qwen3_moe", "Qwen3ForCausalLM"},
    {"deepseek", "LlamaForCausalLM"},
    {"granitemoe", "GraniteForCausalLM"},
    {"granitemoeshared", "GraniteForCausalLM"},
    {"olmoe", "OlmoeForCausalLM"},
}};

/// Fields that are about experts and routing: gone with them, as the reader expects.
const std::set<std::string_view> kExpertFields{"num_local_experts",
                                               "num_experts",
                                               "n_routed_experts",
                                               "num_experts_per_tok",
                                               "output_router_logits",
                                               "router_aux_loss_coef",
                                               "router_jitter_noise",
                                               "moe_intermediate_size",
                                               "norm_topk_prob",
                                               "decoder_sparse_step",
                                               "mlp_only_layers",
                                               "mlp_layer_types",
                                               "n_shared_experts",
                                               "first_k_dense_replace",
                                               "moe_layer_freq",
                                               "scoring_func",
                                               "aux_loss_alpha",
                                               "seq_aux",
                                               "shared_intermediate_size",
                                               "shared_expert_intermediate_size",
                                               "auto_map"};

}  // namespace

const Family* extracted_family(const Family& source) {
  for (const auto& [mixture, architecture] : kTwins) {
    if (mixture == source.name) return find_family(architecture);
  }
  return nullptr;
}

Json extracted_config(const Family& source, const Json& moe, std::uint64_t intermediate_size, std::vector<std::string>& notes) {
  const Family* twin = extracted_family(source);
  if (twin == nullptr) {
    throw Error(ErrorCode::kUnsupported, "Experts of a " + std::string(source.architectures.front()) + " have no dense twin.");
  }
  Json named = moe;
  named["model_type"] = source.model_type;
  DecoderConfig decoder = read_decoder_config(named);
  decoder.intermediate_size = static_cast<std::int64_t>(intermediate_size);
  ProblemList problems;
  Json config = write_decoder_config(decoder, *twin, problems, notes);
  if (twin->name == "qwen2" && decoder.attention_bias != DecoderConfig::AttentionBias::kInputs) {
    problems.add(
        {ErrorCode::kUnsupported, "config.json: qkv_bias is false, but a Qwen2ForCausalLM always has biases of q, k and v.", {}, 0, {}});
  }
  problems.throw_if_any();
  note_what_is_left(moe, config, kExpertFields, notes);
  if (twin == &source) {
    config[std::string(source.num_experts_keys.front())] = 1;
    config["num_experts_per_tok"] = 1;
    // The weight of the only expert is 1 either way.
    config["norm_topk_prob"] = false;
    config["output_router_logits"] = false;
    config["router_aux_loss_coef"] = 0.01;
  }
  return config;
}

}  // namespace moeweld::model
