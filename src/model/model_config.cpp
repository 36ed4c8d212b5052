#include "moeweld/model/model_config.h"

#include <algorithm>
#include <cmath>

#include "model/config_defaults.h"
#include "model/config_fields.h"

namespace moeweld::model {
namespace {

bool is_nested_rope(const Json& parameters) {
  if (!parameters.is_object()) return false;
  for (const auto& item : parameters.items()) {
    if (item.value().is_object()) return true;
  }
  return false;
}

/// The scaling object without rope_theta, null when it scales nothing.
Json normalised_scaling(const Json& source) {
  if (!source.is_object()) return nullptr;
  Json scaling = source;
  scaling.erase("rope_theta");
  scaling.erase("partial_rotary_factor");
  const Json* type = field(scaling, "rope_type");
  if (type == nullptr) type = field(scaling, "type");
  if (type == nullptr) return scaling.empty() ? Json(nullptr) : scaling;
  const Json type_value = *type;
  if (type_value == "default" && scaling.size() <= (scaling.contains("type") && scaling.contains("rope_type") ? 2U : 1U)) return nullptr;
  scaling["rope_type"] = type_value;
  if (!scaling.contains("type")) scaling["type"] = type_value;
  return scaling;
}

}  // namespace

const Json* field(const Json& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(std::string(key));
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

std::string text_field(const Json& object, std::string_view key) {
  const Json* value = field(object, key);
  return value != nullptr && value->is_string() ? value->get<std::string>() : std::string();
}

std::optional<double> number_field(const Json& object, std::string_view key) {
  const Json* value = field(object, key);
  return value != nullptr && value->is_number() ? std::optional<double>(value->get<double>()) : std::nullopt;
}

bool is_true(const Json& object, std::string_view key) {
  const Json* value = field(object, key);
  return value != nullptr && value->is_boolean() && value->get<bool>();
}

Json value_or(const Json& object, std::string_view key, Json fallback) {
  const Json* value = field(object, key);
  if (value != nullptr) return *value;
  return fallback;
}

const Json& text_config(const Json& config) {
  const Json* nested = field(config, "text_config");
  return nested != nullptr && nested->is_object() ? *nested : config;
}

Json plain_number(double value) {
  if (value == std::floor(value) && std::abs(value) < 9e15) return static_cast<std::int64_t>(value);
  return value;
}

double default_rope_theta(const Json& config) {
  const std::string model_type = text_field(config, "model_type");
  if (model_type == "mixtral" || model_type == "phimoe") return 1e6;
  if (model_type == "minimax_m2" || model_type == "minimax") return 5e6;
  return 1e4;
}

void write_num_experts(Json& config, const Family& family) {
  const auto& keys = family.num_experts_keys;
  const auto found = std::find_if(keys.begin(), keys.end(), [&](std::string_view key) { return field(config, key) != nullptr; });
  if (found == keys.end() || found == keys.begin()) return;
  const Json value = *field(config, *found);
  config.erase(std::string(*found));
  config[std::string(keys.front())] = value;
}

std::uint32_t default_experts_per_token(const Family& family) {
  const ConfigDefaults* defaults = find_defaults(family.model_type);
  return defaults == nullptr ? 0 : static_cast<std::uint32_t>(defaults->num_experts_per_tok);
}

Rope read_rope(const Json& config, double default_theta) {
  Rope rope;
  rope.theta = number_field(config, "rope_theta").value_or(default_theta);
  rope.partial_rotary_factor = number_field(config, "partial_rotary_factor");
  const Json* scaling = field(config, "rope_scaling");
  if (const Json* parameters = field(config, "rope_parameters"); parameters != nullptr && !is_nested_rope(*parameters)) {
    // The newer form wins where both are there, as it does in transformers 5 when rope_scaling is absent.
    if (scaling == nullptr) scaling = parameters;
    if (const auto theta = number_field(*parameters, "rope_theta")) rope.theta = *theta;
    if (const auto factor = number_field(*parameters, "partial_rotary_factor")) rope.partial_rotary_factor = factor;
  }
  if (scaling != nullptr) {
    rope.scaling = normalised_scaling(*scaling);
    if (!config.contains("rope_theta")) {
      if (const auto theta = number_field(*scaling, "rope_theta")) rope.theta = *theta;
    }
  }
  return rope;
}

void write_rope(Json& config, const Rope& rope) {
  if (const Json* parameters = field(config, "rope_parameters"); parameters != nullptr && is_nested_rope(*parameters)) return;
  config.erase("rope_parameters");
  config["rope_theta"] = rope.theta;
  config["rope_scaling"] = rope.scaling;
  if (rope.partial_rotary_factor) config["partial_rotary_factor"] = *rope.partial_rotary_factor;
}

void remove_quantization(Json& config) {
  config.erase("quantization_config");
  if (const auto nested = config.find("text_config"); nested != config.end() && nested->is_object()) nested->erase("quantization_config");
}

void set_dtype(Json& config, DType dtype) {
  const std::string name(torch_name(dtype));
  if (name.empty()) return;
  config["torch_dtype"] = name;
  if (config.contains("dtype")) config["dtype"] = name;
  const auto nested = config.find("text_config");
  if (nested == config.end() || !nested->is_object()) return;
  for (const char* key : {"torch_dtype", "dtype"}) {
    if (nested->contains(key)) (*nested)[key] = name;
  }
}

}  // namespace moeweld::model
