#include "infer/small_weights.h"

#include <algorithm>

#include "moeweld/base/archive.h"
#include "moeweld/merge/decode.h"

namespace moeweld::infer {

template <class Archive>
void serialize(Archive& archive, LayerVectors& value) {
  archive(value.input_norm, value.post_attention_norm, value.q_bias, value.k_bias, value.v_bias, value.o_bias, value.q_norm, value.k_norm,
          value.gate_bias, value.up_bias, value.down_bias);
}
template <class Archive>
void serialize(Archive& archive, SmallWeights& value) {
  archive(value.layers, value.final_norm, value.read_bytes);
}

namespace {

std::vector<float> read_vector(ModelFiles& files, const model::Weight& weight, std::uint64_t& read_bytes) {
  if (!weight.is_present()) return {};
  std::vector<std::byte> bytes(weight.size_bytes());
  files.open(weight.file).read(weight.begin, bytes);
  read_bytes += bytes.size();
  std::vector<float> values(weight.rows * weight.columns);
  merge::decode_elements(weight.dtype, bytes.data(), values);
  return values;
}

}  // namespace

SmallWeights read_small_weights(Peers& peers, ModelFiles& files, const model::Transformer& model) {
  std::vector<std::byte> bytes;
  agree_on(peers, [&] {
    if (peers.rank() != 0) return;
    SmallWeights weights;
    const auto read = [&](const model::Weight& weight) { return read_vector(files, weight, weights.read_bytes); };
    for (const model::TransformerLayer& layer : model.layers) {
      LayerVectors& to = weights.layers.emplace_back();
      to.input_norm = read(layer.input_norm);
      to.post_attention_norm = read(layer.post_attention_norm);
      to.q_bias = read(layer.q_bias);
      to.k_bias = read(layer.k_bias);
      to.v_bias = read(layer.v_bias);
      to.o_bias = read(layer.o_bias);
      to.q_norm = read(layer.q_norm);
      to.k_norm = read(layer.k_norm);
      to.gate_bias = read(layer.ffn.gate_bias);
      to.up_bias = read(layer.ffn.up_bias);
      to.down_bias = read(layer.ffn.down_bias);
    }
    weights.final_norm = read(model.final_norm);
    bytes = to_archive(weights);
  });
  peers.broadcast(bytes, 0);
  return from_archive<SmallWeights>(bytes);
}

Embeddings read_embeddings(Peers& peers, ModelFiles& files, const model::Transformer& model, std::span<const std::int64_t> ids) {
  std::vector<std::int64_t> unique(ids.begin(), ids.end());
  std::sort(unique.begin(), unique.end());
  unique.erase(std::unique(unique.begin(), unique.end()), unique.end());
  const auto begin_of = [&](int rank) { return unique.size() * static_cast<std::size_t>(rank) / static_cast<std::size_t>(peers.size()); };
  const std::size_t row_bytes = model.token_embedding.row_bytes();

  Embeddings result;
  std::vector<std::byte> mine;
  agree_on(peers, [&] {
    mine.resize((begin_of(peers.rank() + 1) - begin_of(peers.rank())) * row_bytes);
    std::span<std::byte> space(mine);
    for (std::size_t i = begin_of(peers.rank()); i < begin_of(peers.rank() + 1); ++i, space = space.subspan(row_bytes)) {
      files.open(model.token_embedding.file)
          .read(model.token_embedding.begin + static_cast<std::uint64_t>(unique[i]) * row_bytes, space.first(row_bytes));
    }
  });
  result.read_bytes = mine.size();
  const auto all = peers.all_gather(mine);
  result.rows.resize(ids.size() * model.hidden_size);
  const auto factor = static_cast<float>(model.embedding_multiplier);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const auto index = static_cast<std::size_t>(std::lower_bound(unique.begin(), unique.end(), ids[i]) - unique.begin());
    int rank = 0;
    while (index >= begin_of(rank + 1)) ++rank;
    const std::span<float> row(result.rows.data() + i * model.hidden_size, model.hidden_size);
    merge::decode_elements(model.token_embedding.dtype, all[static_cast<std::size_t>(rank)].data() + (index - begin_of(rank)) * row_bytes,
                           row);
    for (float& value : row) value *= factor;
  }
  return result;
}

}  // namespace moeweld::infer
