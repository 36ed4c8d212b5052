#pragma once
/// What config.json of a decoder means, whatever its family: read from one family's fields, written as another's.

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "moeweld/base/error.h"
#include "moeweld/model/family.h"
#include "moeweld/model/model_config.h"

namespace moeweld::model {

struct DecoderConfig {
  enum class AttentionBias : std::uint8_t { kNone, kInputs, kAll };  ///< kInputs: of q, k and v

  std::string_view model_type;  ///< of the source
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t num_layers = 0;
  std::int64_t num_heads = 0;
  std::int64_t num_key_value_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t max_position_embeddings = 0;
  std::string hidden_act;
  double rms_norm_eps = 0;
  Rope rope;
  std::int64_t sliding_window = 0;  ///< of all layers; 0: none
  bool mixed_windows = false;       ///< not all layers have the same
  bool nested_rope = false;         ///< not all layers have the same
  AttentionBias attention_bias = AttentionBias::kNone;
  bool mlp_bias = false;
  double attention_multiplier = 0;  ///< 1/sqrt(head_dim) but for Granite
  double embedding_multiplier = 1;
  double residual_multiplier = 1;
  double logits_scaling = 1;
  std::optional<double> clip_qkv;
  Json others;  ///< attention_dropout, initializer_range, …: fields that mean the same in every family, as they are to be written
};

/// Throws Error(kInvalidInput) for fields that make no sense, Error(kUnsupported) for a model_type that has no row of defaults.
DecoderConfig read_decoder_config(const Json& config);

/// The fields of `output`, without those of experts. What it cannot hold and would change results goes to `problems`.
Json write_decoder_config(const DecoderConfig& decoder, const Family& output, ProblemList& problems, std::vector<std::string>& notes);

/// Says in `notes` which fields of `source` are neither in `result` nor among `expected`, but for those that are about the file.
void note_what_is_left(const Json& source, const Json& result, const std::set<std::string_view>& expected, std::vector<std::string>& notes);

}  // namespace moeweld::model
