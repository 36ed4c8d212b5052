#include <array>
#include <set>
#include <string_view>

#include "model/config_fields.h"
#include "moeweld/base/error.h"
#include "moeweld/model/model_config.h"

namespace moeweld::model {
namespace {

/// What readers take when a key is absent (transformers 4.57 and 5.23 agree on all of these).
struct Defaults {
  std::string_view model_type;
  int intermediate_size;
  int num_key_value_heads;  ///< 0: as many as attention heads
  int max_position_embeddings;
  double rms_norm_eps;
  int sliding_window;  ///< 0: none
};
constexpr std::array<Defaults, 5> kDefaults{{
    {"llama", 11008, 0, 2048, 1e-6, 0},
    {"mistral", 14336, 8, 131072, 1e-6, 4096},
    {"mixtral", 14336, 8, 131072, 1e-5, 0},
    {"qwen2", 22016, 32, 32768, 1e-6, 0},
    {"qwen3", 22016, 32, 32768, 1e-6, 0},
}};

const Defaults* find_defaults(std::string_view model_type) {
  for (const Defaults& row : kDefaults) {
    if (row.model_type == model_type) return &row;
  }
  return nullptr;
}

Json value_or(const Json& config, std::string_view key, Json fallback) {
  const Json* value = field(config, key);
  if (value != nullptr) return *value;
  return fallback;
}

/// Like value_or, but an explicit null stays null.
Json stated_or(const Json& config, const char* key, Json fallback) {
  if (config.contains(key)) return config.at(key);
  return fallback;
}

std::int64_t positive_integer(const Json& config, std::string_view key, std::int64_t fallback) {
  const Json value = value_or(config, key, fallback);
  if (!value.is_number_integer() || value.get<std::int64_t>() < 1) {
    throw Error(ErrorCode::kInvalidInput,
                "config.json: '" + std::string(key) + "' is " + value.dump() + ", but must be a whole number above 0.");
  }
  return value.get<std::int64_t>();
}

Json effective_sliding_window(const Json& config, const Defaults& defaults) {
  return stated_or(config, "sliding_window", defaults.sliding_window == 0 ? Json(nullptr) : Json(defaults.sliding_window));
}

void refuse_if(bool refused, const std::string& message, ProblemList& problems) {
  if (refused) problems.add({ErrorCode::kUnsupported, message, {}, 0, {}});
}

bool is_true(const Json& config, std::string_view key) {
  const Json* value = field(config, key);
  return value != nullptr && value->is_boolean() && value->get<bool>();
}

void refuse_what_changes_results(const Json& config, const std::string& target, ProblemList& problems) {
  for (const std::string_view key : {"attention_bias", "mlp_bias"}) {
    refuse_if(is_true(config, key), "config.json: " + std::string(key) + " is true, but a " + target + " has no such biases.", problems);
  }
  const std::string activation = value_or(config, "hidden_act", "silu").dump();
  refuse_if(activation != "\"silu\"" && activation != "\"swish\"",
            "config.json: hidden_act is " + activation + ", but a " + target + " is run with silu.", problems);
  const Rope rope = read_rope(config, default_rope_theta(config));
  refuse_if(rope.partial_rotary_factor.value_or(1.0) != 1.0,
            "config.json: partial_rotary_factor is " + plain_number(rope.partial_rotary_factor.value_or(1.0)).dump() + ", but a " + target +
                " rotates whole heads.",
            problems);
  if (const Json* types = field(config, "layer_types"); types != nullptr && types->is_array()) {
    for (const Json& type : *types) {
      if (type != types->front()) {
        refuse_if(true, "config.json: layer_types mixes kinds of attention, but a " + target + " has one kind.", problems);
        break;
      }
    }
  }
  const Json* rope_parameters = field(config, "rope_parameters");
  if (rope_parameters != nullptr && rope_parameters->is_object()) {
    for (const auto& item : rope_parameters->items()) {
      if (!item.value().is_object()) continue;
      refuse_if(true, "config.json: rope_parameters differ by kind of layer, but a " + target + " has one rope.", problems);
      break;
    }
  }
}

/// Fields that are about the file, not about the model.
constexpr std::array<std::string_view, 17> kSilentFields{
    "architectures", "model_type",        "transformers_version", "_name_or_path",
    "dtype",         "rope_parameters",   "rope_scaling",         "attention_bias",
    "mlp_bias",      "layer_types",       "pretraining_tp",       "partial_rotary_factor",
    "torch_dtype",   "num_hidden_layers", "use_sliding_window",   "_attn_implementation",
    "is_decoder"};

/// What both families share, every field that changes results written out.
Json common_config(const Json& source, const Defaults& defaults, std::string_view architecture, std::string_view model_type) {
  const std::int64_t num_heads = positive_integer(source, "num_attention_heads", 32);
  const std::int64_t hidden_size = positive_integer(source, "hidden_size", 4096);
  Json config = Json::object();
  config["architectures"] = Json::array({architecture});
  config["model_type"] = model_type;
  config["vocab_size"] = positive_integer(source, "vocab_size", 32000);
  config["hidden_size"] = hidden_size;
  config["intermediate_size"] = positive_integer(source, "intermediate_size", defaults.intermediate_size);
  config["num_hidden_layers"] = positive_integer(source, "num_hidden_layers", 32);
  config["num_attention_heads"] = num_heads;
  // Present as null means one per attention head; absent means the family's default.
  const bool kv_is_null = source.contains("num_key_value_heads") && source.at("num_key_value_heads").is_null();
  config["num_key_value_heads"] = positive_integer(
      source, "num_key_value_heads", kv_is_null || defaults.num_key_value_heads == 0 ? num_heads : defaults.num_key_value_heads);
  config["head_dim"] = positive_integer(source, "head_dim", hidden_size / num_heads);
  config["hidden_act"] = value_or(source, "hidden_act", "silu");
  config["max_position_embeddings"] = positive_integer(source, "max_position_embeddings", defaults.max_position_embeddings);
  config["rms_norm_eps"] = value_or(source, "rms_norm_eps", defaults.rms_norm_eps);
  Rope rope = read_rope(source, default_rope_theta(source));
  rope.partial_rotary_factor.reset();
  write_rope(config, rope);
  config["sliding_window"] = effective_sliding_window(source, defaults);
  config["attention_dropout"] = value_or(source, "attention_dropout", 0.0);
  config["tie_word_embeddings"] = value_or(source, "tie_word_embeddings", false);
  config["initializer_range"] = value_or(source, "initializer_range", 0.02);
  config["use_cache"] = value_or(source, "use_cache", true);
  config["bos_token_id"] = stated_or(source, "bos_token_id", 1);
  config["eos_token_id"] = stated_or(source, "eos_token_id", 2);
  if (source.contains("pad_token_id")) config["pad_token_id"] = source.at("pad_token_id");
  if (const Json dtype = value_or(source, "torch_dtype", value_or(source, "dtype", nullptr)); !dtype.is_null())
    config["torch_dtype"] = dtype;
  return config;
}

void note_what_is_left(const Json& source, const Json& result, const std::set<std::string_view>& expected,
                       std::vector<std::string>& notes) {
  for (const auto& item : source.items()) {
    const std::string& key = item.key();
    if (result.contains(key) || expected.contains(key)) continue;
    bool silent = false;
    for (const std::string_view known : kSilentFields) silent = silent || known == key;
    if (!silent) notes.push_back("config.json: the base's field '" + key + "' is not carried over.");
  }
}

const Defaults& defaults_of(const Json& config, std::initializer_list<std::string_view> accepted, const std::string& purpose) {
  const std::string model_type = text_field(config, "model_type");
  for (const std::string_view known : accepted) {
    if (model_type == known) return *find_defaults(known);
  }
  throw Error(ErrorCode::kUnsupported, "config.json: model_type is '" + model_type + "', but " + purpose + ".");
}

std::string printed(const Json& value) {
  if (value.is_null()) return "none";
  if (value.is_number()) return plain_number(value.get<double>()).dump();
  return value.is_string() ? value.get<std::string>() : value.dump();
}

/// A field's value with its family's default; null: absent.
Json effective(const Json& config, std::string_view key) {
  const Defaults* defaults = find_defaults(text_field(config, "model_type"));
  if (defaults == nullptr) return value_or(config, key, nullptr);
  const auto num_heads = number_field(config, "num_attention_heads").value_or(32);
  if (key == "num_attention_heads") return num_heads;
  if (key == "num_key_value_heads") {
    const bool is_null = config.contains("num_key_value_heads") && config.at("num_key_value_heads").is_null();
    return value_or(config, key, is_null || defaults->num_key_value_heads == 0 ? Json(num_heads) : Json(defaults->num_key_value_heads));
  }
  if (key == "head_dim") {
    if (defaults->model_type == "qwen3") return value_or(config, key, 128);
    return value_or(config, key, number_field(config, "hidden_size").value_or(4096) / (num_heads > 0 ? num_heads : 1));
  }
  if (key == "rms_norm_eps") return value_or(config, key, defaults->rms_norm_eps);
  if (key == "hidden_act") return value_or(config, key, "silu");
  if (key == "sliding_window") {
    if (defaults->model_type.starts_with("qwen") && !is_true(config, "use_sliding_window")) return nullptr;
    return effective_sliding_window(config, *defaults);
  }
  if (key == "attention_bias" || key == "mlp_bias") return value_or(config, key, false);
  if (key == "num_experts_per_tok" && defaults->model_type == "mixtral") return value_or(config, key, 2);
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

Json mixtral_config(const Json& dense, int num_experts, int experts_per_token, std::vector<std::string>& notes) {
  const Defaults& defaults = defaults_of(dense, {"llama", "mistral"}, "only llama and mistral models become a Mixtral in this version");
  ProblemList problems;
  refuse_what_changes_results(dense, "Mixtral", problems);
  problems.throw_if_any();
  Json config = common_config(dense, defaults, "MixtralForCausalLM", "mixtral");
  note_what_is_left(dense, config, {}, notes);
  config["num_local_experts"] = num_experts;
  config["num_experts_per_tok"] = experts_per_token;
  config["output_router_logits"] = false;
  config["router_aux_loss_coef"] = 0.001;
  config["router_jitter_noise"] = 0.0;
  return config;
}

Json mistral_config(const Json& mixtral, std::vector<std::string>& notes) {
  const Defaults& defaults =
      defaults_of(mixtral, {"mixtral"}, "experts are taken out of a Mixtral only; other families come with a later version");
  ProblemList problems;
  refuse_what_changes_results(mixtral, "Mistral", problems);
  problems.throw_if_any();
  Json config = common_config(mixtral, defaults, "MistralForCausalLM", "mistral");
  note_what_is_left(mixtral, config,
                    {"num_local_experts", "num_experts_per_tok", "output_router_logits", "router_aux_loss_coef", "router_jitter_noise"},
                    notes);
  return config;
}

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
