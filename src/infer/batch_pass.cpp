#include "infer/batch_pass.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "infer/elementwise.h"
#include "infer/head.h"

namespace moeweld::infer {
namespace {

void add_bias(std::span<const float> bias, std::uint64_t begin, std::uint64_t count, std::uint64_t num_tokens, float* target,
              std::uint64_t stride) {
  if (bias.empty()) return;
  for (std::uint64_t token = 0; token < num_tokens; ++token) {
    for (std::uint64_t i = 0; i < count; ++i) target[token * stride + i] += bias[begin + i];
  }
}

}  // namespace

BatchPass::BatchPass(const PassContext& context, const Batch& batch, WeightStream& stream, std::size_t first_step, std::size_t num_steps)
    : context_(context),
      model_(context.model),
      batch_(batch),
      stream_(stream),
      loop_(stream, context.options.threads),
      attention_shares_(share_attention(batch, context.model, context.peers.size())),
      normed_(batch.num_tokens, context.model.hidden_size),
      first_step_(first_step),
      num_steps_(num_steps) {
  std::map<std::uint64_t, std::size_t> table_of_length;
  for (const Batch::Member& member : batch.members) {
    const std::uint64_t length = member.end - member.begin;
    const bool is_stretched = model_.rope.type == model::RopeType::kDynamic && length > model_.rope.max_positions;
    const std::uint64_t key = is_stretched ? length : 0;
    const auto [found, is_new] = table_of_length.try_emplace(key, tables_.size());
    if (is_new) {
      std::uint64_t needed = length;
      if (!is_stretched) {
        for (const Batch::Member& other : batch.members) {
          const std::uint64_t other_length = other.end - other.begin;
          if (model_.rope.type != model::RopeType::kDynamic || other_length <= model_.rope.max_positions)
            needed = std::max(needed, other_length);
        }
      }
      tables_.emplace_back(model_.rope, needed);
    }
    table_of_member_.push_back(found->second);
  }
}

void BatchPass::push(const StageShares& shares) {
  for (const RowRange& range : mine(shares)) stream_.push(range);
}

/// Weights whose use does not depend on routing, up to the next router.
void BatchPass::push_static_from(std::size_t layer) {
  for (; layer < model_.layers.size(); ++layer) {
    const model::TransformerLayer& weights = model_.layers[layer];
    push(query_key_value_shares(weights));
    push(output_shares(weights));
    push(ffn_in_shares(weights));
    if (weights.router.is_present()) return;
    push(down_shares(weights));
  }
  if (context_.options.want_logits) push(head_shares());
}

StageShares BatchPass::query_key_value_shares(const model::TransformerLayer& layer) const {
  return share_rows(std::vector<RowRange>{all_rows(layer.q, 0), all_rows(layer.k, 1), all_rows(layer.v, 2)}, context_.peers.size());
}

StageShares BatchPass::output_shares(const model::TransformerLayer& layer) const {
  return share_rows(std::vector<RowRange>{all_rows(layer.o)}, context_.peers.size());
}

/// Group 0: the dense or shared FFN's gate and up; 1: the router; 2: the shared experts' gate.
StageShares BatchPass::ffn_in_shares(const model::TransformerLayer& layer) const {
  std::vector<RowRange> ranges;
  if (layer.ffn.gate.is_present()) ranges.push_back(all_rows(layer.ffn.gate, layer.ffn.up, 0));
  if (layer.router.is_present()) ranges.push_back(all_rows(layer.router, 1));
  if (layer.shared_gate.is_present()) ranges.push_back(all_rows(layer.shared_gate, 2));
  return share_rows(ranges, context_.peers.size());
}

StageShares BatchPass::down_shares(const model::TransformerLayer& layer) const {
  return share_rows(std::vector<RowRange>{all_rows(layer.ffn.down)}, context_.peers.size());
}

StageShares BatchPass::head_shares() const { return share_rows(std::vector<RowRange>{all_rows(model_.head)}, context_.peers.size()); }

void BatchPass::observe(const Observer& observer, std::size_t layer, const Plane& plane) {
  if (!observer) return;
  agree_on(context_.peers, [&] {
    for (const Batch::Member& member : batch_.members) {
      const std::uint64_t length = member.end - member.begin;
      observer({.layer = layer,
                .sequence = member.sequence,
                .num_tokens = length,
                .hidden = std::span(plane.row(member.begin), length * plane.columns)});
    }
  });
}

void BatchPass::run(ForwardReport& report) {
  std::vector<std::int64_t> ids;
  for (const Batch::Member& member : batch_.members)
    ids.insert(ids.end(), context_.sequences[member.sequence].begin(), context_.sequences[member.sequence].end());
  push_static_from(0);
  Embeddings embeddings = read_embeddings(context_.peers, context_.files, model_, ids);
  extra_read_bytes_ = embeddings.read_bytes;
  hidden_.rows = batch_.num_tokens;
  hidden_.columns = model_.hidden_size;
  hidden_.values = std::move(embeddings.rows);

  const int threads = context_.options.threads;
  for (std::size_t layer = 0; layer < model_.layers.size(); ++layer) {
    agree_on(context_.peers, [&] {
      if (context_.options.on_step) context_.options.on_step(first_step_ + layer, num_steps_);
    });
    observe(context_.options.on_layer_input, layer, hidden_);
    attention_block(layer);
    rms_norm(hidden_, context_.vectors.layers[layer].post_attention_norm, model_.rms_norm_eps, threads, normed_);
    observe(context_.options.on_router_input, layer, normed_);
    Plane result(batch_.num_tokens, model_.hidden_size);
    if (model_.layers[layer].router.is_present()) {
      sparse_ffn(layer, result);
    } else {
      dense_ffn(layer, result);
    }
    add_scaled(result, model_.residual_multiplier, threads, hidden_);
    const bool is_earlier = report.first_non_finite_layer < 0 || static_cast<std::int64_t>(layer) < report.first_non_finite_layer;
    if (is_earlier && !all_finite(hidden_.values)) report.first_non_finite_layer = static_cast<std::int64_t>(layer);
  }
  if (!context_.options.want_logits) return;
  rms_norm(hidden_, context_.vectors.final_norm, model_.rms_norm_eps, threads, normed_);
  run_head(context_.peers, model_, batch_, context_.sequences, normed_, head_shares(), loop_, context_.options.want_last_logits, threads,
           std::span(report.sequences).subspan(batch_.members.front().sequence, batch_.members.size()));
}

void BatchPass::attention_block(std::size_t layer) {
  const model::TransformerLayer& weights = model_.layers[layer];
  const LayerVectors& vectors = context_.vectors.layers[layer];
  const int threads = context_.options.threads;
  const std::uint64_t tokens = batch_.num_tokens;
  rms_norm(hidden_, vectors.input_norm, model_.rms_norm_eps, threads, normed_);
  const ProductInput input{normed_.values.data(), normed_.columns, batch_.tiles};

  Plane attended(tokens, model_.num_heads * model_.head_dim);
  {
    Plane qkv(tokens, (model_.num_heads + 2 * model_.num_kv_heads) * model_.head_dim);
    const std::vector<std::uint64_t> first_column = {0, weights.q.rows, weights.q.rows + weights.k.rows};
    const std::vector<std::span<const float>> biases = {vectors.q_bias, vectors.k_bias, vectors.v_bias};
    const StageShares shares = query_key_value_shares(weights);
    agree_on(context_.peers, [&] {
      loop_.run(
          mine(shares), [](std::uint32_t) {},
          [&](const RowRange& tile, const std::byte* rows, const std::byte*, TileScratch& scratch) {
            float* target = qkv.values.data() + first_column[tile.group] + tile.begin;
            multiply_tile(tile.weight, rows, tile.end - tile.begin, input, scratch.decoded, target, qkv.columns);
            add_bias(biases[tile.group], tile.begin, tile.end - tile.begin, tokens, target, qkv.columns);
          });
    });
    gather(context_.peers, pieces_of(shares, first_column, std::vector<Piece>(3, {0, tokens, 0, 0})), qkv);
    rotate(layer, qkv);
    agree_on(context_.peers,
             [&] { attend(batch_, model_, weights.sliding_window, attention_shares_, context_.peers.rank(), threads, qkv, attended); });
    gather(context_.peers, attention_shares_.pieces_of_rank, attended);
  }
  Plane result(tokens, model_.hidden_size);
  const ProductInput heads{attended.values.data(), attended.columns, batch_.tiles};
  const StageShares shares = output_shares(weights);
  agree_on(context_.peers, [&] {
    loop_.run(
        mine(shares), [](std::uint32_t) {},
        [&](const RowRange& tile, const std::byte* rows, const std::byte*, TileScratch& scratch) {
          float* target = result.values.data() + tile.begin;
          multiply_tile(tile.weight, rows, tile.end - tile.begin, heads, scratch.decoded, target, result.columns);
          add_bias(vectors.o_bias, tile.begin, tile.end - tile.begin, tokens, target, result.columns);
        });
  });
  gather(context_.peers, pieces_of(shares, std::vector<std::uint64_t>{0}, std::vector<Piece>{{0, tokens, 0, 0}}), result);
  add_scaled(result, model_.residual_multiplier, threads, hidden_);
}

void BatchPass::rotate(std::size_t layer, Plane& qkv) const {
  const LayerVectors& vectors = context_.vectors.layers[layer];
  const std::uint64_t dim = model_.head_dim;
  for (std::size_t index = 0; index < batch_.members.size(); ++index) {
    const Batch::Member& member = batch_.members[index];
    const RotaryTable& table = tables_[table_of_member_[index]];
#pragma omp parallel for schedule(static) num_threads(context_.options.threads)
    for (std::uint64_t row = member.begin; row < member.end; ++row) {
      for (std::uint64_t head = 0; head < model_.num_heads + model_.num_kv_heads; ++head) {
        float* values = qkv.row(row) + head * dim;
        const std::vector<float>& norm = head < model_.num_heads ? vectors.q_norm : vectors.k_norm;
        if (!norm.empty()) rms_norm(std::span(values, dim), norm, model_.rms_norm_eps, values);
        table.rotate(row - member.begin, values);
      }
    }
  }
}

void BatchPass::gated_tile(const RowRange& tile, const std::byte* gate, const std::byte* up, const ProductInput& input,
                           const LayerVectors* biases, TileScratch& scratch, float* target, std::uint64_t stride) const {
  const std::uint64_t num_rows = tile.end - tile.begin;
  const std::uint64_t num_tokens = input.num_tokens();
  scratch.first.resize(num_tokens * kRowTile);
  scratch.second.resize(num_tokens * kRowTile);
  multiply_tile(tile.weight, gate, num_rows, input, scratch.decoded, scratch.first.data(), kRowTile);
  multiply_tile(tile.second, up, num_rows, input, scratch.decoded, scratch.second.data(), kRowTile);
  if (biases != nullptr) {
    add_bias(biases->gate_bias, tile.begin, num_rows, num_tokens, scratch.first.data(), kRowTile);
    add_bias(biases->up_bias, tile.begin, num_rows, num_tokens, scratch.second.data(), kRowTile);
  }
  for (std::uint64_t token = 0; token < num_tokens; ++token) {
    for (std::uint64_t i = 0; i < num_rows; ++i) {
      target[token * stride + tile.begin + i] =
          activate(model_.activation, scratch.first[token * kRowTile + i]) * scratch.second[token * kRowTile + i];
    }
  }
}

void BatchPass::dense_ffn(std::size_t layer, Plane& result) {
  const model::TransformerLayer& weights = model_.layers[layer];
  const LayerVectors& vectors = context_.vectors.layers[layer];
  const std::uint64_t tokens = batch_.num_tokens;
  const std::vector<std::uint64_t> first_column = {0};
  const std::vector<Piece> all_tokens = {{0, tokens, 0, 0}};

  Plane inner(tokens, weights.ffn.gate.rows);
  const ProductInput input{normed_.values.data(), normed_.columns, batch_.tiles};
  const StageShares in_shares = ffn_in_shares(weights);
  agree_on(context_.peers, [&] {
    loop_.run(
        mine(in_shares), [](std::uint32_t) {},
        [&](const RowRange& tile, const std::byte* gate, const std::byte* up, TileScratch& scratch) {
          gated_tile(tile, gate, up, input, &vectors, scratch, inner.values.data(), inner.columns);
        });
  });
  gather(context_.peers, pieces_of(in_shares, first_column, all_tokens), inner);

  const ProductInput inner_input{inner.values.data(), inner.columns, batch_.tiles};
  const StageShares shares = down_shares(weights);
  agree_on(context_.peers, [&] {
    loop_.run(
        mine(shares), [](std::uint32_t) {},
        [&](const RowRange& tile, const std::byte* rows, const std::byte*, TileScratch& scratch) {
          float* target = result.values.data() + tile.begin;
          multiply_tile(tile.weight, rows, tile.end - tile.begin, inner_input, scratch.decoded, target, result.columns);
          add_bias(vectors.down_bias, tile.begin, tile.end - tile.begin, tokens, target, result.columns);
        });
  });
  gather(context_.peers, pieces_of(shares, first_column, all_tokens), result);
}

void BatchPass::sparse_ffn(std::size_t layer, Plane& result) {
  const model::TransformerLayer& weights = model_.layers[layer];
  const std::uint64_t tokens = batch_.num_tokens;
  const bool has_shared = weights.ffn.gate.is_present();

  // Router, shared experts' inner activations and their gate side by side, so that one exchange brings them all.
  const std::uint64_t shared_width = has_shared ? weights.ffn.gate.rows : 0;
  const std::uint64_t num_experts = weights.router.rows;
  const std::vector<std::uint64_t> first_column = {0, shared_width, shared_width + num_experts};
  Plane front(tokens, shared_width + num_experts + 1);
  const ProductInput input{normed_.values.data(), normed_.columns, batch_.tiles};
  const StageShares front_shares = ffn_in_shares(weights);
  agree_on(context_.peers, [&] {
    loop_.run(
        mine(front_shares), [](std::uint32_t) {},
        [&](const RowRange& tile, const std::byte* first, const std::byte* second, TileScratch& scratch) {
          if (second != nullptr) {
            gated_tile(tile, first, second, input, nullptr, scratch, front.values.data(), front.columns);
          } else {
            multiply_tile(tile.weight, first, tile.end - tile.begin, input, scratch.decoded,
                          front.values.data() + first_column[tile.group] + tile.begin, front.columns);
          }
        });
  });
  gather(context_.peers, pieces_of(front_shares, first_column, std::vector<Piece>(3, {0, tokens, 0, 0})), front);

  Plane logits(tokens, num_experts);
  for (std::uint64_t token = 0; token < tokens; ++token)
    std::memcpy(logits.row(token), front.row(token) + shared_width, num_experts * sizeof(float));
  const std::vector<ExpertLoad> loads = route(logits, model_.experts_per_token, model_.normalise_expert_weights, batch_.pack_ends);

  // Each rank has the same rows of every down matrix, so that it can add up the experts' outputs by itself.
  std::vector<RowRange> downs;
  for (std::size_t index = 0; index < loads.size(); ++index)
    downs.push_back(all_rows(weights.experts[loads[index].expert].down, static_cast<std::uint32_t>(index)));
  if (has_shared) downs.push_back(all_rows(weights.ffn.down, static_cast<std::uint32_t>(loads.size())));
  const StageShares out_shares = share_same_rows(downs, context_.peers.size());

  std::vector<RowRange> ins;
  for (std::size_t index = 0; index < loads.size(); ++index) {
    const model::GatedFfn& expert = weights.experts[loads[index].expert];
    ins.push_back(all_rows(expert.gate, expert.up, static_cast<std::uint32_t>(index)));
  }
  const StageShares in_shares = share_rows(ins, context_.peers.size());
  push(in_shares);
  push(out_shares);
  push_static_from(layer + 1);

  std::uint64_t num_rows = 0;
  std::uint64_t width = 0;
  std::uint64_t most_tokens = 0;
  std::vector<Piece> rows_of_group;
  for (const ExpertLoad& load : loads) {
    num_rows += load.tokens.size();
    most_tokens = std::max<std::uint64_t>(most_tokens, load.tokens.size());
    width = std::max(width, weights.experts[load.expert].gate.rows);
    rows_of_group.push_back({load.first_row, load.first_row + load.tokens.size(), 0, 0});
  }
  Plane inner(num_rows, width);
  {
    Plane routed(most_tokens, model_.hidden_size);
    agree_on(context_.peers, [&] {
      const auto collect = [&](std::uint32_t group) {
        const ExpertLoad& load = loads[group];
        for (std::size_t i = 0; i < load.tokens.size(); ++i)
          std::memcpy(routed.row(i), normed_.row(load.tokens[i]), model_.hidden_size * sizeof(float));
      };
      loop_.run(mine(in_shares), collect, [&](const RowRange& tile, const std::byte* gate, const std::byte* up, TileScratch& scratch) {
        const ExpertLoad& load = loads[tile.group];
        gated_tile(tile, gate, up, {routed.values.data(), routed.columns, load.tiles}, nullptr, scratch, inner.row(load.first_row),
                   inner.columns);
      });
    });
  }
  gather(context_.peers, pieces_of(in_shares, std::vector<std::uint64_t>(loads.size()), rows_of_group), inner);

  std::vector<float> shared_weights(tokens, 1.0F);
  if (weights.shared_gate.is_present()) {
    for (std::uint64_t token = 0; token < tokens; ++token) shared_weights[token] = sigmoid(front.row(token)[first_column[2]]);
  }
  agree_on(context_.peers, [&] {
    loop_.run(
        mine(out_shares), [](std::uint32_t) {},
        [&](const RowRange& tile, const std::byte* rows, const std::byte*, TileScratch& scratch) {
          const bool is_shared = tile.group == loads.size();
          const std::uint64_t count = is_shared ? tokens : loads[tile.group].tokens.size();
          const ProductInput from = is_shared
                                        ? ProductInput{front.values.data(), front.columns, batch_.tiles}
                                        : ProductInput{inner.row(loads[tile.group].first_row), inner.columns, loads[tile.group].tiles};
          scratch.first.resize(count * kRowTile);
          multiply_tile(tile.weight, rows, tile.end - tile.begin, from, scratch.decoded, scratch.first.data(), kRowTile);
          for (std::uint64_t i = 0; i < count; ++i) {
            const float weight = is_shared ? shared_weights[i] : loads[tile.group].weights[i];
            float* target = result.row(is_shared ? i : loads[tile.group].tokens[i]) + tile.begin;
            const float* product = scratch.first.data() + i * kRowTile;
            for (std::uint64_t column = 0; column < tile.end - tile.begin; ++column) target[column] += weight * product[column];
          }
        });
  });
  const std::vector<std::uint64_t> same_column(downs.size());
  // Every rank has the same columns from all downs: one of them describes the piece.
  StageShares once = out_shares;
  for (std::vector<RowRange>& ranges : once.ranges_of_rank) {
    if (ranges.size() > 1) ranges.resize(1);
  }
  gather(context_.peers, pieces_of(once, same_column, std::vector<Piece>(downs.size(), {0, tokens, 0, 0})), result);
}

}  // namespace moeweld::infer
