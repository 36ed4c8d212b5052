#pragma once
/// What a forward pass needs to know of a checkpoint: its numbers, and where each matrix is. Pure data that rank 0 makes and others
/// receive. Every field of config.json that changes results is resolved here as transformers 4.57 and 5.23 resolve it.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "moeweld/base/archive.h"
#include "moeweld/base/dtype.h"
#include "moeweld/storage/storage.h"

namespace moeweld::formats {
struct Checkpoint;
}

namespace moeweld::model {

struct Catalog;

/// A matrix [rows, columns], row-major, or a vector [1, columns]: contiguous bytes of one file. Absent where rows is 0.
struct Weight {
  /// Scales of codes of block-scaled FP8, as ScaleLocation has them: `columns` of them for a row of blocks; 0: there are none.
  struct Scales {
    DType dtype{};
    std::uint32_t file = 0;
    std::uint64_t begin = 0;
    std::uint64_t columns = 0;
    std::uint64_t first_row = 0;
  };
  DType dtype{};
  std::uint32_t file = 0;   ///< index into Transformer::files
  std::uint64_t begin = 0;  ///< first byte in the file
  std::uint64_t rows = 0;
  std::uint64_t columns = 0;

  Scales scales{};

  bool is_present() const { return rows != 0; }
  /// With scales, values are computed as float32 while reading.
  DType value_dtype() const { return scales.columns != 0 ? DType::kF32 : dtype; }
  std::uint64_t value_row_bytes() const { return columns * moeweld::size_bytes(value_dtype()); }
  std::uint64_t row_bytes() const { return columns * moeweld::size_bytes(dtype); }
  std::uint64_t size_bytes() const { return rows * row_bytes(); }
};

/// y = down (act(gate x) * (up x)); all absent where a layer has none.
struct GatedFfn {
  Weight gate;  ///< [width, hidden]
  Weight up;    ///< [width, hidden]
  Weight down;  ///< [hidden, width]
  Weight gate_bias, up_bias, down_bias;
};

struct TransformerLayer {
  Weight input_norm, post_attention_norm;  ///< [1, hidden]
  Weight q, k, v, o;
  Weight q_bias, k_bias, v_bias, o_bias;
  Weight q_norm, k_norm;             ///< [1, head_dim]: RMS norm of each head before rope
  std::uint64_t sliding_window = 0;  ///< position i sees j with i - j < sliding_window; 0: all before it
  GatedFfn ffn;                      ///< the dense FFN, or the shared experts, which every token passes
  Weight router;                     ///< [experts, hidden]; absent: a dense layer
  std::vector<GatedFfn> experts;
  Weight shared_gate;  ///< [1, hidden]: the shared experts' output is multiplied by sigmoid(shared_gate x)
};

enum class RopeType : std::uint8_t { kDefault, kLinear, kDynamic, kYarn, kLlama3 };

/// Rotary embedding as transformers' modeling_rope_utils defines it. The first rotary_dim elements of a head are rotated, element i with
/// element i + rotary_dim / 2.
struct RopeSpec {
  RopeType type = RopeType::kDefault;
  double theta = 10000.0;
  std::uint64_t rotary_dim = 0;
  double factor = 1.0;
  std::uint64_t max_positions = 0;                       ///< config.json's max_position_embeddings
  std::uint64_t original_max_positions = 0;              ///< what the model was trained with (yarn, llama3)
  double attention_factor = 1.0;                         ///< cos and sin are multiplied by it (yarn)
  double beta_fast = 32.0, beta_slow = 1.0;              ///< yarn
  bool truncate = true;                                  ///< yarn
  double low_freq_factor = 1.0, high_freq_factor = 4.0;  ///< llama3
};

enum class Activation : std::uint8_t { kSilu, kGeluTanh, kRelu };

struct TransformerFile {
  std::string path;
  FileIdentity identity;
};

struct Transformer {
  std::string family;
  std::vector<TransformerFile> files;
  std::uint64_t hidden_size = 0;
  std::uint64_t vocabulary_size = 0;
  std::uint64_t num_heads = 0, num_kv_heads = 0, head_dim = 0;
  double rms_norm_eps = 1e-6;
  Activation activation = Activation::kSilu;
  RopeSpec rope;
  double embedding_multiplier = 1.0;  ///< Granite
  double attention_multiplier = 1.0;  ///< of q·k: 1/√head_dim, or what Granite says
  double residual_multiplier = 1.0;   ///< of what a block adds to the residual stream
  double logits_divisor = 1.0;        ///< Granite's logits_scaling
  std::uint64_t experts_per_token = 0;
  bool normalise_expert_weights = false;  ///< the chosen experts' softmax weights are made to add up to 1
  Weight token_embedding;                 ///< [vocabulary, hidden]
  Weight final_norm;
  Weight head;  ///< [vocabulary, hidden]; the embedding again where the head is tied
  std::vector<TransformerLayer> layers;
  std::vector<std::string> notes;  ///< what readers ignore, and so do we: biases that config.json denies, …

  std::uint64_t size_bytes() const;  ///< of all weights
};

/// llama, mistral, qwen2, qwen3, granite; mixtral, qwen2_moe, qwen3_moe, granitemoe, granitemoeshared, deepseek (v1).
bool is_transformer_family(std::string_view family);

/// Throws Error, all problems collected: kUnsupported where the family, the rope, the activation or a tensor's type is not one that the
/// forward pass computes (named); kInvalidInput where config.json and the shapes of tensors disagree.
Transformer read_transformer(const formats::Checkpoint& checkpoint, const Catalog& catalog);

template <class Archive>
void serialize(Archive& archive, Weight::Scales& value) {
  archive(value.dtype, value.file, value.begin, value.columns, value.first_row);
}
template <class Archive>
void serialize(Archive& archive, Weight& value) {
  archive(value.dtype, value.file, value.begin, value.rows, value.columns, value.scales);
}
template <class Archive>
void serialize(Archive& archive, GatedFfn& value) {
  archive(value.gate, value.up, value.down, value.gate_bias, value.up_bias, value.down_bias);
}
template <class Archive>
void serialize(Archive& archive, TransformerLayer& value) {
  archive(value.input_norm, value.post_attention_norm, value.q, value.k, value.v, value.o, value.q_bias, value.k_bias, value.v_bias,
          value.o_bias, value.q_norm, value.k_norm, value.sliding_window, value.ffn, value.router, value.experts, value.shared_gate);
}
template <class Archive>
void serialize(Archive& archive, RopeSpec& value) {
  archive(value.type, value.theta, value.rotary_dim, value.factor, value.max_positions, value.original_max_positions,
          value.attention_factor, value.beta_fast, value.beta_slow, value.truncate, value.low_freq_factor, value.high_freq_factor);
}
template <class Archive>
void serialize(Archive& archive, TransformerFile& value) {
  archive(value.path, value.identity.size_bytes, value.identity.modified_ns);
}
template <class Archive>
void serialize(Archive& archive, Transformer& value) {
  archive(value.family, value.files, value.hidden_size, value.vocabulary_size, value.num_heads, value.num_kv_heads, value.head_dim,
          value.rms_norm_eps, value.activation, value.rope, value.embedding_multiplier, value.attention_multiplier,
          value.residual_multiplier, value.logits_divisor, value.experts_per_token, value.normalise_expert_weights, value.token_embedding,
          value.final_norm, value.head, value.layers, value.notes);
}

}  // namespace moeweld::model
