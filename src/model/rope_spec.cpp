#include "model/rope_spec.h"

#include <cmath>

#include "model/config_fields.h"
#include "moeweld/base/elementary.h"
#include "moeweld/base/text.h"
#include "moeweld/model/model_config.h"

namespace moeweld::model {
namespace {

/// The YaRN paper's attention temperature, as transformers writes it.
double yarn_mscale(double scale, double mscale) { return scale <= 1.0 ? 1.0 : 0.1 * mscale * exact_log(scale) + 1.0; }

}  // namespace

RopeSpec read_rope_spec(const formats::Json& config, std::uint64_t head_dim, std::uint64_t max_positions, ProblemList& problems,
                        const std::string& path) {
  const auto problem = [&](ErrorCode code, std::string message) { problems.add({code, std::move(message), path, 0, {}}); };
  const Rope rope = read_rope(config, default_rope_theta(config));
  RopeSpec spec;
  spec.theta = rope.theta;
  spec.max_positions = max_positions;
  spec.original_max_positions = max_positions;
  spec.rotary_dim = static_cast<std::uint64_t>(static_cast<double>(head_dim) * rope.partial_rotary_factor.value_or(1.0));
  if (spec.rotary_dim < 2 || spec.rotary_dim % 2 != 0 || spec.rotary_dim > head_dim) {
    problem(ErrorCode::kInvalidInput, "rope turns " + std::to_string(spec.rotary_dim) + " of " + std::to_string(head_dim) +
                                          " elements of a head; it must be an even number, at most all.");
  }
  if (!(spec.theta > 0) || !std::isfinite(spec.theta)) problem(ErrorCode::kInvalidInput, "'rope_theta' must be above 0.");
  if (const Json* parameters = field(config, "rope_parameters"); parameters != nullptr && parameters->is_object()) {
    for (const auto& item : parameters->items()) {
      if (!item.value().is_object()) continue;
      problem(ErrorCode::kUnsupported, "'rope_parameters' differ by kind of layer; the forward pass has one rope for all layers.");
      break;
    }
  }
  if (!rope.scaling.is_object()) return spec;

  const Json& scaling = rope.scaling;
  const std::string type = text_field(scaling, "rope_type").empty() ? text_field(scaling, "type") : text_field(scaling, "rope_type");
  const auto required = [&](std::string_view key) {
    const auto value = number_field(scaling, key);
    if (!value || !(*value > 0) || !std::isfinite(*value)) {
      problem(ErrorCode::kInvalidInput,
              "rope of type '" + printable(type, 40) + "' needs a number above 0 for '" + std::string(key) + "'.");
      return 1.0;
    }
    return *value;
  };
  const auto original = [&] {
    auto stated = number_field(config, "original_max_position_embeddings");
    if (!stated) stated = number_field(scaling, "original_max_position_embeddings");
    if (stated && (!(*stated >= 1) || *stated > 1e12)) {
      problem(ErrorCode::kInvalidInput, "rope's 'original_max_position_embeddings' must be at least 1.");
      return max_positions;
    }
    return stated ? static_cast<std::uint64_t>(*stated) : max_positions;
  };
  if (type.empty() || type == "default") {
    spec.type = RopeType::kDefault;
  } else if (type == "linear") {
    spec.type = RopeType::kLinear;
    spec.factor = required("factor");
  } else if (type == "dynamic") {
    spec.type = RopeType::kDynamic;
    spec.factor = required("factor");
  } else if (type == "yarn") {
    spec.type = RopeType::kYarn;
    spec.original_max_positions = original();
    spec.factor = field(scaling, "factor") == nullptr && field(scaling, "original_max_position_embeddings") != nullptr
                      ? static_cast<double>(max_positions) / static_cast<double>(spec.original_max_positions)
                      : required("factor");
    const double mscale = number_field(scaling, "mscale").value_or(0.0);
    const double mscale_all_dim = number_field(scaling, "mscale_all_dim").value_or(0.0);
    const double inferred = mscale != 0.0 && mscale_all_dim != 0.0
                                ? yarn_mscale(spec.factor, mscale) / yarn_mscale(spec.factor, mscale_all_dim)
                                : yarn_mscale(spec.factor, 1.0);
    spec.attention_factor = number_field(scaling, "attention_factor").value_or(inferred);
    const auto positive_or = [&](std::string_view key, double fallback) {
      const double value = number_field(scaling, key).value_or(0.0);
      return value != 0.0 ? value : fallback;
    };
    spec.beta_fast = positive_or("beta_fast", 32.0);
    spec.beta_slow = positive_or("beta_slow", 1.0);
    const Json* truncate = field(scaling, "truncate");
    spec.truncate = truncate == nullptr || !truncate->is_boolean() || truncate->get<bool>();
  } else if (type == "llama3") {
    spec.type = RopeType::kLlama3;
    spec.factor = required("factor");
    spec.low_freq_factor = required("low_freq_factor");
    spec.high_freq_factor = required("high_freq_factor");
    spec.original_max_positions = original();
  } else {
    problem(ErrorCode::kUnsupported, "rope of type '" + printable(type, 40) +
                                         "' is not computed by the forward pass; it has default, linear, dynamic, yarn and llama3.");
  }
  return spec;
}

}  // namespace moeweld::model
