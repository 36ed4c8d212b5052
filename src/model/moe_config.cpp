#include <array>

#include "moeweld/base/error.h"
#include "moeweld/model/model_config.h"

namespace moeweld::model {

namespace {

constexpr double kDenseTheta = 10000.0;
constexpr double kMixtralTheta = 1e6;

std::string model_type(const Json& config) { return config.contains("model_type") && config["model_type"].is_string() ? config["model_type"].get<std::string>() : ""; }

bool is_true(const Json& config, const char* key) { return config.contains(key) && config[key].is_boolean() && config[key].get<bool>(); }

std::int64_t integer(const Json& config, const char* key) {
  if (config.contains(key) && config[key].is_number_integer()) return config[key].get<std::int64_t>();
  throw Error(ErrorCode::kInvalidInput, "config.json of the base has no whole number '" + std::string(key) + "'");
}

/// What readers take when the field is absent, by family (transformers' configuration classes).
double norm_epsilon(const Json& config) {
  if (config.contains("rms_norm_eps") && config["rms_norm_eps"].is_number()) return config["rms_norm_eps"].get<double>();
  return model_type(config) == "mixtral" ? 1e-5 : 1e-6;
}

Json sliding_window(const Json& config) {
  if (config.contains("sliding_window")) return config["sliding_window"];
  return model_type(config) == "mistral" ? Json(4096) : Json(nullptr);
}

std::int64_t default_positions(const Json& config) {
  if (config.contains("max_position_embeddings")) return integer(config, "max_position_embeddings");
  return model_type(config) == "llama" ? 2048 : 131072;
}

void refuse_what_changes_results(const Json& dense) {
  ProblemList problems;
  const auto refuse = [&](const std::string& what) {
    problems.add(Problem{ErrorCode::kUnsupported, "the base's config.json says " + what + ", which a Mixtral cannot hold and which changes results", {}, 0, {}});
  };
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    if (is_true(dense, key)) refuse(std::string(key) + ": true");
  }
  if (dense.contains("hidden_act") && dense["hidden_act"] != "silu" && dense["hidden_act"] != "swish") refuse("hidden_act: " + dense["hidden_act"].dump());
  const auto partial = [&](const Json& where) {
    if (where.contains("partial_rotary_factor") && where["partial_rotary_factor"].is_number() && where["partial_rotary_factor"].get<double>() != 1.0) {
      refuse("partial_rotary_factor: " + where["partial_rotary_factor"].dump());
    }
  };
  partial(dense);
  if (dense.contains("rope_parameters") && dense["rope_parameters"].is_object()) partial(dense["rope_parameters"]);
  problems.throw_if_any();
}

/// Fields that mean the same in all families of this page, in the order config.json is read by people.
Json common_fields(const Json& source, double default_theta) {
  Json result;
  result["architectures"] = Json::array();
  result["model_type"] = "";
  result["vocab_size"] = integer(source, "vocab_size");
  result["hidden_size"] = integer(source, "hidden_size");
  result["intermediate_size"] = integer(source, "intermediate_size");
  result["num_hidden_layers"] = integer(source, "num_hidden_layers");
  const std::int64_t heads = integer(source, "num_attention_heads");
  result["num_attention_heads"] = heads;
  result["num_key_value_heads"] = source.contains("num_key_value_heads") && source["num_key_value_heads"].is_number_integer()
                                      ? source["num_key_value_heads"].get<std::int64_t>()
                                      : (model_type(source) == "llama" ? heads : 8);
  // transformers crash on a Mixtral with dynamic or yarn rope unless head_dim is there.
  result["head_dim"] = source.contains("head_dim") && source["head_dim"].is_number_integer() ? source["head_dim"].get<std::int64_t>()
                                                                                              : integer(source, "hidden_size") / heads;
  result["hidden_act"] = source.contains("hidden_act") ? source["hidden_act"] : Json("silu");
  result["max_position_embeddings"] = default_positions(source);
  result["rms_norm_eps"] = norm_epsilon(source);
  result["sliding_window"] = sliding_window(source);
  result["tie_word_embeddings"] = is_true(source, "tie_word_embeddings");
  write_rope(result, read_rope(source, default_theta));
  for (const char* key : {"attention_dropout", "initializer_range", "bos_token_id", "eos_token_id", "pad_token_id", "use_cache", "torch_dtype", "dtype",
                          "transformers_version"}) {
    if (source.contains(key)) result[key] = source[key];
  }
  return result;
}

void note_what_is_left_out(const Json& source, const Json& result, const std::array<std::string_view, 16>& harmless, std::vector<std::string>& notes) {
  for (const auto& [key, value] : source.items()) {
    if (result.contains(key) || key == "rope_parameters" || value.is_null()) continue;
    bool known = false;
    for (const std::string_view name : harmless) known = known || key == name;
    if (!known) notes.push_back("config.json: '" + key + "' of the source is not carried over");
  }
}

constexpr std::array<std::string_view, 16> kHarmless = {
    "pretraining_tp", "attention_bias", "mlp_bias",        "_name_or_path", "partial_rotary_factor", "num_local_experts",       "num_experts_per_tok", "router_aux_loss_coef",
    "output_router_logits", "router_jitter_noise", "layer_types", "rope_interleaved", "is_llama_config",   "use_sliding_window", "_attn_implementation", "quantization"};

}  // namespace

Json mixtral_config(const Json& dense, int num_experts, int experts_per_token, std::vector<std::string>& notes) {
  refuse_what_changes_results(dense);
  Json result = common_fields(dense, kDenseTheta);
  result["architectures"] = {"MixtralForCausalLM"};
  result["model_type"] = "mixtral";
  result["num_local_experts"] = num_experts;
  result["num_experts_per_tok"] = experts_per_token;
  result["router_aux_loss_coef"] = 0.001;
  result["output_router_logits"] = false;
  note_what_is_left_out(dense, result, kHarmless, notes);
  return result;
}

Json mistral_config(const Json& mixtral, std::vector<std::string>& notes) {
  Json result = common_fields(mixtral, kMixtralTheta);
  result["architectures"] = {"MistralForCausalLM"};
  result["model_type"] = "mistral";
  note_what_is_left_out(mixtral, result, kHarmless, notes);
  return result;
}

}  // namespace moeweld::model
