#pragma once
/// config.json: read by its meaning, rewritten for the output.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "moeweld/base/dtype.h"
#include "moeweld/formats/json.h"
#include "moeweld/model/family.h"

namespace moeweld::model {

using formats::Json;

/// Rope as both generations of transformers write it: top-level rope_theta + rope_scaling, or rope_parameters.
struct Rope {
  double theta = 10000.0;
  Json scaling;                                 ///< null: none; else the object without rope_theta, with both "type" and "rope_type"
  std::optional<double> partial_rotary_factor;  ///< transformers 5 keeps it inside rope_parameters
};
Rope read_rope(const Json& config, double default_theta);
/// What readers take when config.json says nothing: 1e6 for Mixtral and PhiMoE, 5e6 for MiniMax M2, 1e4 elsewhere.
double default_rope_theta(const Json& config);
/// The number of experts under the family's first key: transformers 5 saves a Qwen3-MoE's as num_local_experts, which 4.57 does not read.
void write_num_experts(Json& config, const Family& family);
/// Experts that each token takes where config.json says nothing; 0 for families whose readers' default is not known here.
std::uint32_t default_experts_per_token(const Family& family);
/// Writes the older form, which every reader understands, and removes rope_parameters. Nested rope_parameters (one per layer type) are left
/// alone.
void write_rope(Json& config, const Rope& rope);

/// Changes `num_hidden_layers` (nested text_config too) and maps every list with one entry per layer (layer_types, mlp_layer_types,
/// mlp_only_layers, no_rope_layers, …) to the layers of the output. source_layers[i]: layer of this config's model that output layer i
/// takes its entry from. Says in `notes` what it changed.
void select_layers(Json& config, const std::vector<int>& source_layers, std::vector<std::string>& notes);

/// Sets torch_dtype (and "dtype" where the source has it).
void set_dtype(Json& config, DType dtype);

/// The output's tensors are not quantised.
void remove_quantization(Json& config);

/// Fields of two configs of the same family that change what the weights mean and differ (rope theta and scaling, rms_norm_eps,
/// num_attention_heads, head_dim, hidden_act, …): "rope_theta: 10000 and 1000000". For warnings.
std::vector<std::string> config_differences(const Json& a, const Json& b);

}  // namespace moeweld::model
