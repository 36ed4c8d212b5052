#pragma once
/// What readers take when config.json says nothing.

#include <string_view>

#include "moeweld/formats/json.h"

namespace moeweld::model {

/// Transformers 4.57.6 and 5.23 agree on all of these; DeepSeek v1's are those of its released configuration_deepseek.py.
struct ConfigDefaults {
  std::string_view model_type;
  int vocab_size;
  int hidden_size;
  int intermediate_size;
  int num_hidden_layers;
  int num_attention_heads;
  int num_key_value_heads;  ///< 0: as many as attention heads
  int head_dim;             ///< 0: hidden_size / num_attention_heads
  int max_position_embeddings;
  double rms_norm_eps;
  int sliding_window;  ///< 0: none
  int bos_token_id;    ///< -1: none
  int eos_token_id;    ///< -1: none
  int num_experts_per_tok;
};

/// Null for other families.
const ConfigDefaults* find_defaults(std::string_view model_type);

}  // namespace moeweld::model
