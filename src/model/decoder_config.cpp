#include "model/decoder_config.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "model/config_defaults.h"
#include "model/config_fields.h"

namespace moeweld::model {
namespace {

using AttentionBias = DecoderConfig::AttentionBias;

/// What a family's config.json can say.
struct Holds {
  std::string_view model_type;
  bool any_head_dim;    ///< head_dim need not be hidden_size / num_attention_heads, for any reader
  bool sliding_window;  ///< of all layers
  bool all_biases;      ///< attention_bias
  bool multipliers;     ///< Granite's
};
constexpr std::array<Holds, 10> kHolds{{
    {"mixtral", true, true, false, false},
    {"mistral", true, true, false, false},
    {"llama", true, false, true, false},
    {"qwen2", true, true, false, false},
    {"qwen3", true, true, true, false},
    {"qwen2_moe", false, true, false, false},
    {"qwen3_moe", true, true, true, false},
    {"deepseek", false, false, false, false},
    {"granite", true, false, true, true},
    {"granitemoeshared", false, false, true, true},
}};
/// OLMoE goes to itself only.
constexpr Holds kHoldsOlmoe{"olmoe", false, false, true, false};

const Holds& holds_of(std::string_view model_type) {
  for (const Holds& row : kHolds) {
    if (row.model_type == model_type) return row;
  }
  return kHoldsOlmoe;
}

bool is_qwen(std::string_view model_type) { return model_type.starts_with("qwen"); }

std::int64_t positive_integer(const Json& config, std::string_view key, std::int64_t fallback) {
  const Json* value = field(config, key);
  if (value == nullptr) return fallback;
  if (!value->is_number_integer() || value->get<std::int64_t>() < 1 || value->get<std::int64_t>() > std::int64_t{1} << 40) {
    throw Error(ErrorCode::kInvalidInput,
                "config.json: '" + std::string(key) + "' is " + value->dump() + ", but must be a whole number above 0.");
  }
  return value->get<std::int64_t>();
}

double positive_number(const Json& config, std::string_view key, double fallback) {
  const Json* value = field(config, key);
  if (value == nullptr) return fallback;
  if (!value->is_number() || !(value->get<double>() > 0)) {
    throw Error(ErrorCode::kInvalidInput,
                "config.json: '" + std::string(key) + "' is " + value->dump() + ", but must be a number above 0.");
  }
  return value->get<double>();
}

/// Like value_or, but an explicit null stays null.
Json stated_or(const Json& config, const std::string& key, Json fallback) {
  if (config.contains(key)) return config.at(key);
  return fallback;
}

void read_windows(const Json& config, const ConfigDefaults& defaults, DecoderConfig& decoder) {
  const Json window = stated_or(config, "sliding_window", defaults.sliding_window == 0 ? Json(nullptr) : Json(defaults.sliding_window));
  const bool has_window = window.is_number_integer() && window.get<std::int64_t>() > 0 &&
                          (!is_qwen(decoder.model_type) || is_true(config, "use_sliding_window"));
  const Json* types = field(config, "layer_types");
  if (types != nullptr && types->is_array() && !types->empty()) {
    const bool first = types->front() == "sliding_attention";
    for (const Json& type : *types) decoder.mixed_windows = decoder.mixed_windows || type != types->front();
    if (first && has_window) decoder.sliding_window = window.get<std::int64_t>();
    return;
  }
  if (!has_window) return;
  decoder.sliding_window = window.get<std::int64_t>();
  if (decoder.model_type == "qwen2" || decoder.model_type == "qwen3") {
    const Json* first = field(config, "max_window_layers");
    const std::int64_t full = first != nullptr && first->is_number_integer() ? first->get<std::int64_t>() : 28;
    if (full >= decoder.num_layers) {
      decoder.sliding_window = 0;
    } else if (full > 0) {
      decoder.mixed_windows = true;
    }
  }
  // Its readers disagree which layers have the window unless layer_types says so.
  if (decoder.model_type == "qwen2_moe") decoder.mixed_windows = true;
}

bool is_nested(const Json& config) {
  const Json* parameters = field(config, "rope_parameters");
  if (parameters == nullptr || !parameters->is_object()) return false;
  return std::any_of(parameters->begin(), parameters->end(), [](const Json& value) { return value.is_object(); });
}

Json common_fields(const Json& config, const ConfigDefaults& defaults) {
  const auto token = [](int id) { return id < 0 ? Json(nullptr) : Json(id); };
  Json others = Json::object();
  others["attention_dropout"] = value_or(config, "attention_dropout", 0.0);
  others["tie_word_embeddings"] = value_or(config, "tie_word_embeddings", false);
  others["initializer_range"] = value_or(config, "initializer_range", 0.02);
  others["use_cache"] = value_or(config, "use_cache", true);
  others["bos_token_id"] = stated_or(config, "bos_token_id", token(defaults.bos_token_id));
  others["eos_token_id"] = stated_or(config, "eos_token_id", token(defaults.eos_token_id));
  if (config.contains("pad_token_id")) others["pad_token_id"] = config.at("pad_token_id");
  const Json dtype = value_or(config, "torch_dtype", value_or(config, "dtype", nullptr));
  if (!dtype.is_null()) others["torch_dtype"] = dtype;
  return others;
}

std::string printed(double value) { return plain_number(value).dump(); }

/// Adds what `output` cannot hold.
class Refusals {
 public:
  Refusals(const DecoderConfig& decoder, const Family& output, ProblemList& problems, std::vector<std::string>& notes)
      : decoder_(decoder), holds_(holds_of(output.name)), name_(output.architectures.front()), problems_(problems), notes_(notes) {}

  void run() {
    if (decoder_.attention_bias == AttentionBias::kAll && !holds_.all_biases) refuse("attention_bias is true", "has no such biases");
    if (decoder_.mlp_bias) refuse("mlp_bias is true", "has no such biases");
    if (decoder_.hidden_act != "silu" && decoder_.hidden_act != "swish" && holds_.model_type != "olmoe") {
      refuse("hidden_act is '" + decoder_.hidden_act + "'", "is run with silu");
    }
    const double rotary = decoder_.rope.partial_rotary_factor.value_or(1.0);
    if (rotary != 1.0) refuse("partial_rotary_factor is " + printed(rotary), "rotates whole heads");
    if (decoder_.nested_rope) refuse("rope_parameters differ by kind of layer", "has one rope");
    if (decoder_.head_dim * decoder_.num_heads != decoder_.hidden_size && !holds_.any_head_dim) {
      refuse("head_dim is " + std::to_string(decoder_.head_dim),
             "has heads of hidden_size / num_attention_heads = " + std::to_string(decoder_.hidden_size) + " / " +
                 std::to_string(decoder_.num_heads));
    }
    check_window();
    check_multipliers();
    if (decoder_.clip_qkv && holds_.model_type != "olmoe") refuse("clip_qkv is " + printed(*decoder_.clip_qkv), "does not clip");
  }

 private:
  void refuse(const std::string& fact, const std::string& but) {
    problems_.add({ErrorCode::kUnsupported, "config.json: " + fact + ", but a " + name_ + " " + but + ".", {}, 0, {}});
  }

  void check_window() {
    if (decoder_.mixed_windows) {
      refuse("layer_types, or use_sliding_window with max_window_layers, mixes kinds of attention", "has one kind");
    } else if (decoder_.sliding_window > 0 && !holds_.sliding_window) {
      if (decoder_.sliding_window < decoder_.max_position_embeddings) {
        refuse("sliding_window is " + std::to_string(decoder_.sliding_window) + ", less than max_position_embeddings " +
                   std::to_string(decoder_.max_position_embeddings),
               "has none");
      } else {
        notes_.push_back("config.json: sliding_window " + std::to_string(decoder_.sliding_window) +
                         " is left out: it is no less than max_position_embeddings.");
      }
    }
  }

  void check_multipliers() {
    if (holds_.multipliers) return;
    const auto check = [&](const char* key, double value, double neutral) {
      if (value != neutral) refuse(std::string(key) + " is " + printed(value), "has no such factor");
    };
    check("attention_multiplier", decoder_.attention_multiplier, 1.0 / std::sqrt(static_cast<double>(decoder_.head_dim)));
    check("embedding_multiplier", decoder_.embedding_multiplier, 1.0);
    check("residual_multiplier", decoder_.residual_multiplier, 1.0);
    check("logits_scaling", decoder_.logits_scaling, 1.0);
  }

  const DecoderConfig& decoder_;
  const Holds& holds_;
  const std::string name_;
  ProblemList& problems_;
  std::vector<std::string>& notes_;
};

void write_window(const DecoderConfig& decoder, std::string_view output, Json& config) {
  const Json window = decoder.sliding_window > 0 ? Json(decoder.sliding_window) : Json(nullptr);
  if (output == "mistral" || output == "mixtral") config["sliding_window"] = window;
  if (!is_qwen(output)) return;
  config["use_sliding_window"] = decoder.sliding_window > 0;
  config["sliding_window"] = window;
  if (output == "qwen3_moe") return;
  config["max_window_layers"] = decoder.sliding_window > 0 ? 0 : decoder.num_layers;
  if (decoder.sliding_window > 0) {
    config["layer_types"] = std::vector<std::string>(static_cast<std::size_t>(decoder.num_layers), "sliding_attention");
  }
}

}  // namespace

DecoderConfig read_decoder_config(const Json& config) {
  const std::string model_type = text_field(config, "model_type");
  const ConfigDefaults* defaults = find_defaults(model_type);
  if (defaults == nullptr) {
    throw Error(ErrorCode::kUnsupported, "config.json: model_type is '" + model_type + "', whose fields this version cannot convert.");
  }
  DecoderConfig decoder;
  decoder.model_type = defaults->model_type;
  decoder.vocab_size = positive_integer(config, "vocab_size", defaults->vocab_size);
  decoder.hidden_size = positive_integer(config, "hidden_size", defaults->hidden_size);
  decoder.intermediate_size = positive_integer(config, "intermediate_size", defaults->intermediate_size);
  decoder.num_layers = positive_integer(config, "num_hidden_layers", defaults->num_hidden_layers);
  if (decoder.num_layers > 1'000'000) throw Error(ErrorCode::kInvalidInput, "config.json says more than a million layers.");
  decoder.num_heads = positive_integer(config, "num_attention_heads", defaults->num_attention_heads);
  // Present as null means one per attention head; absent means the family's default.
  const bool one_each = defaults->num_key_value_heads == 0 || stated_or(config, "num_key_value_heads", 0).is_null();
  decoder.num_key_value_heads =
      positive_integer(config, "num_key_value_heads", one_each ? decoder.num_heads : defaults->num_key_value_heads);
  const std::int64_t even = std::max<std::int64_t>(1, decoder.hidden_size / decoder.num_heads);
  decoder.head_dim = positive_integer(config, "head_dim", defaults->head_dim == 0 ? even : defaults->head_dim);
  decoder.max_position_embeddings = positive_integer(config, "max_position_embeddings", defaults->max_position_embeddings);
  decoder.hidden_act = field(config, "hidden_act") == nullptr ? "silu" : text_field(config, "hidden_act");
  decoder.rms_norm_eps = positive_number(config, "rms_norm_eps", defaults->rms_norm_eps);
  decoder.rope = read_rope(config, default_rope_theta(config));
  decoder.nested_rope = is_nested(config);
  read_windows(config, *defaults, decoder);
  if (model_type == "qwen2" || (model_type == "qwen2_moe" && value_or(config, "qkv_bias", true) != false)) {
    decoder.attention_bias = AttentionBias::kInputs;
  } else if (is_true(config, "attention_bias")) {
    decoder.attention_bias = AttentionBias::kAll;
  }
  decoder.mlp_bias = is_true(config, "mlp_bias");
  const bool has_multipliers = model_type.starts_with("granite");
  decoder.attention_multiplier =
      has_multipliers ? positive_number(config, "attention_multiplier", 1.0) : 1.0 / std::sqrt(static_cast<double>(decoder.head_dim));
  if (has_multipliers) {
    decoder.embedding_multiplier = positive_number(config, "embedding_multiplier", 1.0);
    decoder.residual_multiplier = positive_number(config, "residual_multiplier", 1.0);
    decoder.logits_scaling = positive_number(config, "logits_scaling", 1.0);
  }
  decoder.clip_qkv = number_field(config, "clip_qkv");
  decoder.others = common_fields(config, *defaults);
  return decoder;
}

Json write_decoder_config(const DecoderConfig& decoder, const Family& output, ProblemList& problems, std::vector<std::string>& notes) {
  Refusals(decoder, output, problems, notes).run();
  const Holds& holds = holds_of(output.name);
  Json config = Json::object();
  config["architectures"] = Json::array({output.architectures.front()});
  config["model_type"] = output.model_type;
  config["vocab_size"] = decoder.vocab_size;
  config["hidden_size"] = decoder.hidden_size;
  config["intermediate_size"] = decoder.intermediate_size;
  config["num_hidden_layers"] = decoder.num_layers;
  config["num_attention_heads"] = decoder.num_heads;
  config["num_key_value_heads"] = decoder.num_key_value_heads;
  config["head_dim"] = decoder.head_dim;
  config["hidden_act"] = decoder.hidden_act;
  config["max_position_embeddings"] = decoder.max_position_embeddings;
  config["rms_norm_eps"] = decoder.rms_norm_eps;
  Rope rope = decoder.rope;
  rope.partial_rotary_factor.reset();
  write_rope(config, rope);
  write_window(decoder, output.name, config);
  if (holds.all_biases || output.name == "deepseek") config["attention_bias"] = decoder.attention_bias == AttentionBias::kAll;
  if (output.name == "llama" || output.name == "granite") config["mlp_bias"] = decoder.mlp_bias;
  // Zeros where the source has none.
  if (output.name == "qwen2_moe") config["qkv_bias"] = true;
  if (holds.multipliers) {
    config["attention_multiplier"] = decoder.attention_multiplier;
    config["embedding_multiplier"] = decoder.embedding_multiplier;
    config["residual_multiplier"] = decoder.residual_multiplier;
    config["logits_scaling"] = decoder.logits_scaling;
  }
  if (output.name == "olmoe") config["clip_qkv"] = decoder.clip_qkv ? Json(*decoder.clip_qkv) : Json(nullptr);
  config.update(decoder.others);
  return config;
}

void note_what_is_left(const Json& source, const Json& result, const std::set<std::string_view>& expected,
                       std::vector<std::string>& notes) {
  static constexpr std::array<std::string_view, 20> kSilent{
      "architectures",     "model_type",     "transformers_version",  "_name_or_path",     "dtype",
      "rope_parameters",   "rope_scaling",   "attention_bias",        "mlp_bias",          "layer_types",
      "pretraining_tp",    "torch_dtype",    "partial_rotary_factor", "num_hidden_layers", "use_sliding_window",
      "max_window_layers", "sliding_window", "_attn_implementation",  "is_decoder",        "qkv_bias"};
  for (const auto& item : source.items()) {
    const std::string& key = item.key();
    const bool known = std::find(kSilent.begin(), kSilent.end(), key) != kSilent.end();
    if (!known && !result.contains(key) && !expected.contains(key)) {
      notes.push_back("config.json: the source's field '" + key + "' is not carried over.");
    }
  }
}

}  // namespace moeweld::model
