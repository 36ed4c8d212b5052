#pragma once
/// Checkpoints without files: headers are all that a catalog reads.

#include <gtest/gtest.h>

#include <string>

#include "moeweld/base/error.h"
#include "moeweld/model/catalog.h"

namespace moeweld::model {

using formats::Checkpoint;

class Headers {
 public:
  explicit Headers(const char* config) {
    checkpoint_.directory = "m";
    checkpoint_.files.push_back({"m/model.safetensors", {}});
    checkpoint_.config = formats::Json::parse(config);
  }
  Headers& add(const std::string& name, const Shape& shape, DType dtype = DType::kBF16) {
    const std::uint64_t size = num_elements(shape) * size_bytes(dtype);
    checkpoint_.by_name[name] = static_cast<std::uint32_t>(checkpoint_.tensors.size());
    checkpoint_.tensors.push_back({name, dtype, shape, 0, next_, size});
    next_ += size;
    return *this;
  }
  Headers& add_decoder(int num_layers) {
    add("model.embed_tokens.weight", {10, 4});
    for (int layer = 0; layer < num_layers; ++layer) {
      const std::string prefix = "model.layers." + std::to_string(layer) + ".";
      for (const char* norm : {"input_layernorm", "post_attention_layernorm"}) add(prefix + norm + ".weight", {4});
      for (const char* matrix : {"q_proj", "k_proj", "v_proj", "o_proj"}) add(prefix + "self_attn." + matrix + ".weight", {4, 4});
    }
    return add("model.norm.weight", {4}).add("lm_head.weight", {10, 4});
  }
  Headers& add_dense_ffn(int num_layers) {
    for (int layer = 0; layer < num_layers; ++layer) {
      const std::string prefix = "model.layers." + std::to_string(layer) + ".mlp.";
      add(prefix + "gate_proj.weight", {6, 4}).add(prefix + "up_proj.weight", {6, 4}).add(prefix + "down_proj.weight", {4, 6});
    }
    return *this;
  }
  Catalog catalog(const std::string& architecture = {}) const { return make_catalog(checkpoint_, architecture); }
  const Checkpoint& checkpoint() const { return checkpoint_; }

 private:
  Checkpoint checkpoint_;
  std::uint64_t next_ = 4096;
};

inline std::string failure(const Headers& headers, ErrorCode code = ErrorCode::kInvalidInput) {
  try {
    headers.catalog();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    return error.what();
  }
  return "nothing thrown";
}

}  // namespace moeweld::model
