#include "infer/head.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "infer/elementwise.h"
#include "moeweld/base/elementary.h"

namespace moeweld::infer {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

HeadPartial partial_of(const float* logits, std::uint64_t count, std::uint64_t first_id) {
  HeadPartial partial;
  partial.highest = kLowest;
  partial.id = static_cast<std::uint32_t>(first_id);
  partial.is_finite = all_finite(std::span(logits, count)) ? 1 : 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    if (!(logits[i] > partial.highest)) continue;
    partial.highest = logits[i];
    partial.id = static_cast<std::uint32_t>(first_id + i);
  }
  for (std::uint64_t i = 0; i < count; ++i) partial.sum += exact_exp(static_cast<double>(logits[i]) - partial.highest);
  return partial;
}

}  // namespace

HeadResult fold_partials(std::span<const HeadPartial> partials) {
  HeadResult result{.log_sum = 0, .highest = kLowest, .id = 0, .is_finite = true};
  for (const HeadPartial& partial : partials) {
    result.is_finite = result.is_finite && partial.is_finite != 0;
    if (!(partial.highest > result.highest)) continue;
    result.highest = partial.highest;
    result.id = partial.id;
  }
  double sum = 0;
  for (const HeadPartial& partial : partials) sum += partial.sum * exact_exp(static_cast<double>(partial.highest) - result.highest);
  result.log_sum = static_cast<double>(result.highest) + exact_log(sum);
  return result;
}

void run_head(Peers& peers, const model::Transformer& model, const Batch& batch, std::span<const TokenIds> sequences, const Plane& x,
              const StageShares& shares, ProductLoop& loop, bool want_last_logits, int threads, std::span<SequenceResult> results) {
  const auto rank = static_cast<std::size_t>(peers.rank());
  const std::vector<RowRange>& mine = shares.ranges_of_rank[rank];
  const auto tiles_of = [](const std::vector<RowRange>& ranges) {
    return ranges.empty() ? std::uint64_t{0} : (ranges.front().end - ranges.front().begin + kRowTile - 1) / kRowTile;
  };
  // target[t]: the id that follows token t in its sequence; -1 after the last.
  std::vector<std::int64_t> targets(batch.num_tokens, -1);
  for (const Batch::Member& member : batch.members) {
    for (std::uint64_t i = member.begin; i + 1 < member.end; ++i) targets[i] = sequences[member.sequence][i + 1 - member.begin];
  }
  std::vector<std::uint64_t> target_logits(batch.num_tokens);  // bits of float32, set by the one rank that has the row
  Plane last_logits(want_last_logits ? batch.members.size() : 0, model.head.rows);
  std::vector<HeadPartial> partials(tiles_of(mine) * batch.num_tokens);  // [tile][token]

  agree_on(peers, [&] {
    const ProductInput input{x.values.data(), x.columns, batch.tiles};
    const auto divisor = static_cast<float>(model.logits_divisor);
    const auto use = [&](const RowRange& tile, const std::byte* rows, const std::byte*, TileScratch& scratch) {
      const std::uint64_t num_rows = tile.end - tile.begin;
      scratch.first.resize(batch.num_tokens * kRowTile);
      multiply_tile(tile.weight, rows, num_rows, input, scratch.decoded, scratch.first.data(), kRowTile);
      HeadPartial* to = partials.data() + (tile.begin - mine.front().begin) / kRowTile * batch.num_tokens;
      for (std::uint64_t token = 0; token < batch.num_tokens; ++token) {
        float* logits = scratch.first.data() + token * kRowTile;
        for (std::uint64_t i = 0; i < num_rows; ++i) logits[i] /= divisor;
        to[token] = partial_of(logits, num_rows, tile.begin);
        const std::int64_t target = targets[token];
        if (target < static_cast<std::int64_t>(tile.begin) || target >= static_cast<std::int64_t>(tile.end)) continue;
        std::uint32_t bits = 0;
        std::memcpy(&bits, logits + (static_cast<std::uint64_t>(target) - tile.begin), sizeof bits);
        target_logits[token] = bits;
      }
      for (std::uint64_t member = 0; member < last_logits.rows; ++member) {
        const float* logits = scratch.first.data() + (batch.members[member].end - 1) * kRowTile;
        std::memcpy(last_logits.row(member) + tile.begin, logits, num_rows * sizeof(float));
      }
    };
    loop.run(
        mine, [](std::uint32_t) {}, use);
  });
  peers.sum(target_logits);
  if (want_last_logits) {
    const std::uint64_t first_column = 0;
    gather(peers, pieces_of(shares, std::span(&first_column, 1), std::vector<Piece>{{0, last_logits.rows, 0, 0}}), last_logits);
  }
  const auto all = peers.all_gather(std::as_bytes(std::span(partials)));

  std::vector<HeadResult> tokens(batch.num_tokens);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (std::uint64_t token = 0; token < batch.num_tokens; ++token) {
    std::vector<HeadPartial> column;
    for (std::size_t other = 0; other < all.size(); ++other) {
      for (std::uint64_t tile = 0; tile < tiles_of(shares.ranges_of_rank[other]); ++tile) {
        HeadPartial& partial = column.emplace_back();
        std::memcpy(&partial, all[other].data() + (tile * batch.num_tokens + token) * sizeof partial, sizeof partial);
      }
    }
    tokens[token] = fold_partials(column);
  }
  for (std::size_t index = 0; index < batch.members.size(); ++index) {
    const Batch::Member& member = batch.members[index];
    SequenceResult& result = results[index];
    for (std::uint64_t token = member.begin; token < member.end; ++token) {
      result.predictions.push_back(tokens[token].id);
      result.is_finite = result.is_finite && tokens[token].is_finite;
      if (token + 1 == member.end) continue;
      const auto bits = static_cast<std::uint32_t>(target_logits[token]);
      float logit = 0;
      std::memcpy(&logit, &bits, sizeof logit);
      result.log_likelihoods.push_back(static_cast<double>(logit) - tokens[token].log_sum);
    }
    const HeadResult& last = tokens[member.end - 1];
    result.prediction_probability = exact_exp(static_cast<double>(last.highest) - last.log_sum);
    if (want_last_logits) result.last_logits.assign(last_logits.row(index), last_logits.row(index) + last_logits.columns);
  }
}

}  // namespace moeweld::infer
