#include <array>
#include <string_view>

#include "model/config_defaults.h"
#include "model/config_fields.h"
#include "moeweld/model/model_config.h"

namespace moeweld::model {
namespace {

std::string printed(const Json& value) {
  if (value.is_null()) return "none";
  if (value.is_number()) return plain_number(value.get<double>()).dump();
  return value.is_string() ? value.get<std::string>() : value.dump();
}

/// A field's value with its family's default; null: absent.
Json effective(const Json& config, std::string_view key) {
  const ConfigDefaults* defaults = find_defaults(text_field(config, "model_type"));
  if (defaults == nullptr) return value_or(config, key, nullptr);
  const auto num_heads = number_field(config, "num_attention_heads").value_or(defaults->num_attention_heads);
  if (key == "num_attention_heads") return num_heads;
  if (key == "num_key_value_heads") {
    const bool is_null = config.contains("num_key_value_heads") && config.at("num_key_value_heads").is_null();
    return value_or(config, key, is_null || defaults->num_key_value_heads == 0 ? Json(num_heads) : Json(defaults->num_key_value_heads));
  }
  if (key == "head_dim") {
    if (defaults->head_dim > 0) return value_or(config, key, defaults->head_dim);
    return value_or(config, key, number_field(config, "hidden_size").value_or(defaults->hidden_size) / (num_heads > 0 ? num_heads : 1));
  }
  if (key == "rms_norm_eps") return value_or(config, key, defaults->rms_norm_eps);
  if (key == "hidden_act") return value_or(config, key, "silu");
  if (key == "sliding_window") {
    if (defaults->model_type.starts_with("qwen") && !is_true(config, "use_sliding_window")) return nullptr;
    if (config.contains("sliding_window")) return config.at("sliding_window");
    return defaults->sliding_window == 0 ? Json(nullptr) : Json(defaults->sliding_window);
  }
  if (key == "attention_bias" || key == "mlp_bias") return value_or(config, key, false);
  if (key == "num_experts_per_tok" && defaults->num_experts_per_tok > 0) return value_or(config, key, defaults->num_experts_per_tok);
  return value_or(config, key, nullptr);
}

bool same_value(const Json& a, const Json& b) {
  if (a.is_number() && b.is_number()) return a.get<double>() == b.get<double>();
  return a == b;
}

/// Without the duplicate "type".
Json comparable_scaling(Json scaling) {
  if (scaling.is_object()) scaling.erase("type");
  return scaling;
}

}  // namespace

std::vector<std::string> config_differences(const Json& first, const Json& second) {
  static constexpr std::array<std::string_view, 20> kFields{"hidden_act",
                                                            "rms_norm_eps",
                                                            "layer_norm_eps",
                                                            "layer_norm_epsilon",
                                                            "num_attention_heads",
                                                            "num_key_value_heads",
                                                            "head_dim",
                                                            "sliding_window",
                                                            "attention_bias",
                                                            "mlp_bias",
                                                            "num_experts_per_tok",
                                                            "norm_topk_prob",
                                                            "attention_multiplier",
                                                            "embedding_multiplier",
                                                            "residual_multiplier",
                                                            "logits_scaling",
                                                            "final_logit_softcapping",
                                                            "attn_logit_softcapping",
                                                            "query_pre_attn_scalar",
                                                            "n_head"};
  const Json& a = text_config(first);
  const Json& b = text_config(second);
  std::vector<std::string> differences;
  const auto compare = [&](const std::string& name, const Json& left, const Json& right) {
    if (!same_value(left, right)) differences.push_back(name + ": " + printed(left) + " and " + printed(right));
  };
  const Rope rope_a = read_rope(a, default_rope_theta(a));
  const Rope rope_b = read_rope(b, default_rope_theta(b));
  compare("rope_theta", rope_a.theta, rope_b.theta);
  compare("rope_scaling", comparable_scaling(rope_a.scaling), comparable_scaling(rope_b.scaling));
  compare("partial_rotary_factor", rope_a.partial_rotary_factor.value_or(1.0), rope_b.partial_rotary_factor.value_or(1.0));
  for (const std::string_view key : kFields) compare(std::string(key), effective(a, key), effective(b, key));
  return differences;
}

}  // namespace moeweld::model
