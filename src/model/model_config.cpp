#include "moeweld/model/model_config.h"

#include <array>

#include "moeweld/base/error.h"
#include "moeweld/base/text.h"

namespace moeweld::model {

namespace {

/// Fields whose difference changes what the same weights compute.
constexpr std::array<std::string_view, 12> kMeaningfulFields = {
    "hidden_act",   "hidden_size",        "num_attention_heads",  "num_key_value_heads", "head_dim",           "rms_norm_eps",
    "vocab_size",   "sliding_window",     "attention_bias",       "num_experts_per_tok", "norm_topk_prob",     "tie_word_embeddings"};

std::string shown(const Json& config, const std::string& key) { return config.contains(key) ? printable(config[key].dump(), 120) : "not given"; }

bool holds_one_rope(const Json& parameters) { return parameters.is_object() && (parameters.contains("rope_theta") || parameters.contains("rope_type")); }

}  // namespace

Rope read_rope(const Json& config, double default_theta) {
  Rope rope;
  rope.theta = default_theta;
  rope.scaling = nullptr;
  if (config.contains("rope_theta") && config["rope_theta"].is_number()) rope.theta = config["rope_theta"].get<double>();
  Json scaling = nullptr;
  if (config.contains("rope_scaling") && config["rope_scaling"].is_object()) scaling = config["rope_scaling"];
  if (config.contains("rope_parameters") && holds_one_rope(config["rope_parameters"])) scaling = config["rope_parameters"];
  if (!scaling.is_object()) return rope;
  if (scaling.contains("rope_theta") && scaling["rope_theta"].is_number()) rope.theta = scaling["rope_theta"].get<double>();
  scaling.erase("rope_theta");
  std::string type = "default";
  for (const char* key : {"rope_type", "type"}) {
    if (scaling.contains(key) && scaling[key].is_string()) {
      type = scaling[key].get<std::string>();
      break;
    }
  }
  if (type == "default") return rope;
  scaling["rope_type"] = type;
  scaling["type"] = type;
  rope.scaling = std::move(scaling);
  return rope;
}

void write_rope(Json& config, const Rope& rope) {
  if (config.contains("rope_parameters")) {
    if (config["rope_parameters"].is_object() && !config["rope_parameters"].empty() && !holds_one_rope(config["rope_parameters"])) return;
    config.erase("rope_parameters");
  }
  config["rope_theta"] = rope.theta;
  config["rope_scaling"] = rope.scaling;
}

void set_dtype(Json& config, DType dtype) {
  const std::string name(torch_name(dtype));
  if (name.empty()) return;
  config["torch_dtype"] = name;
  if (config.contains("dtype")) config["dtype"] = name;
  if (config.contains("text_config") && config["text_config"].is_object()) {
    for (const char* key : {"torch_dtype", "dtype"}) {
      if (config["text_config"].contains(key)) config["text_config"][key] = name;
    }
  }
}

std::vector<std::string> config_differences(const Json& a, const Json& b) {
  std::vector<std::string> result;
  for (const std::string_view field : kMeaningfulFields) {
    const std::string key(field);
    if (!a.contains(key) && !b.contains(key)) continue;
    if (a.contains(key) && b.contains(key) && a[key] == b[key]) continue;
    if (!a.contains(key) || !b.contains(key)) {
      // Many writers leave out what is at its default; only two stated values can be said to differ.
      continue;
    }
    result.push_back(key + ": " + shown(a, key) + " and " + shown(b, key));
  }
  const Rope rope_a = read_rope(a, 0);
  const Rope rope_b = read_rope(b, 0);
  if (rope_a.theta != 0 && rope_b.theta != 0 && rope_a.theta != rope_b.theta) {
    result.push_back("rope_theta: " + Json(rope_a.theta).dump() + " and " + Json(rope_b.theta).dump());
  }
  if (rope_a.scaling != rope_b.scaling) result.push_back("rope_scaling: " + printable(rope_a.scaling.dump(), 120) + " and " + printable(rope_b.scaling.dump(), 120));
  return result;
}

}  // namespace moeweld::model
