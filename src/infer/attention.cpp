#include "infer/attention.h"

#include <cblas.h>

#include <algorithm>
#include <exception>

#include "moeweld/base/checked.h"
#include "moeweld/base/elementary.h"

namespace moeweld::infer {
namespace {

/// Queries that one BLAS call multiplies with all their keys.
constexpr std::uint64_t kQueryTile = 64;

struct QueryTile {
  std::uint64_t unit = 0;
  std::uint64_t begin = 0;  ///< positions in the sequence
  std::uint64_t end = 0;
};

/// scores[q][0..num_keys): softmax over the keys that position first_query + q sees; the others become 0.
void softmax_visible(std::uint64_t first_key, std::uint64_t num_keys, const QueryTile& tile, std::uint64_t window,
                     std::vector<float>& scores) {
  for (std::uint64_t query = tile.begin; query < tile.end; ++query) {
    float* row = scores.data() + (query - tile.begin) * num_keys;
    const std::uint64_t seen_begin = window != 0 && query + 1 > window ? query + 1 - window : 0;
    const std::uint64_t begin = seen_begin > first_key ? seen_begin - first_key : 0;
    const std::uint64_t end = query + 1 - first_key;
    float highest = row[begin];
    for (std::uint64_t key = begin; key < end; ++key) highest = std::max(highest, row[key]);
    double sum = 0;
    for (std::uint64_t key = begin; key < end; ++key) {
      const double weight = exact_exp(static_cast<double>(row[key]) - highest);
      row[key] = static_cast<float>(weight);
      sum += weight;
    }
    const double scale = 1.0 / sum;
    for (std::uint64_t key = begin; key < end; ++key) row[key] = static_cast<float>(row[key] * scale);
    std::fill(row, row + begin, 0.0F);
    std::fill(row + end, row + num_keys, 0.0F);
  }
}

}  // namespace

AttentionShares share_attention(const Batch& batch, const model::Transformer& model, int num_ranks) {
  AttentionShares shares;
  std::vector<std::uint64_t> costs;
  for (std::size_t member = 0; member < batch.members.size(); ++member) {
    const std::uint64_t length = batch.members[member].end - batch.members[member].begin;
    for (std::uint64_t head = 0; head < model.num_heads; ++head) {
      shares.units.push_back({member, head});
      costs.push_back(length * (length + kQueryTile));
    }
  }
  shares.begins = split_by_cost(costs, num_ranks);
  for (std::size_t rank = 0; rank < static_cast<std::size_t>(num_ranks); ++rank) {
    std::vector<Piece>& pieces = shares.pieces_of_rank.emplace_back();
    for (std::uint64_t unit = shares.begins[rank]; unit < shares.begins[rank + 1]; ++unit) {
      const Batch::Member& member = batch.members[shares.units[unit].member];
      const std::uint64_t head = shares.units[unit].head;
      pieces.push_back({member.begin, member.end, head * model.head_dim, (head + 1) * model.head_dim});
    }
  }
  return shares;
}

void attend(const Batch& batch, const model::Transformer& model, std::uint64_t sliding_window, const AttentionShares& shares, int rank,
            int threads, const Plane& qkv, Plane& result) {
  std::vector<QueryTile> tiles;
  for (std::uint64_t unit = shares.begins[static_cast<std::size_t>(rank)]; unit < shares.begins[static_cast<std::size_t>(rank) + 1];
       ++unit) {
    const Batch::Member& member = batch.members[shares.units[unit].member];
    const std::uint64_t length = member.end - member.begin;
    for (std::uint64_t begin = 0; begin < length; begin += kQueryTile) tiles.push_back({unit, begin, std::min(length, begin + kQueryTile)});
  }
  const int stride = checked_cast<int>(qkv.columns);
  const int dim = checked_cast<int>(model.head_dim);
  const std::uint64_t heads_per_kv = model.num_heads / model.num_kv_heads;
  std::exception_ptr failure;
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> scores;
#pragma omp for schedule(dynamic, 1)
    for (std::size_t index = 0; index < tiles.size(); ++index) {
      try {
        const QueryTile& tile = tiles[index];
        const AttentionUnit& unit = shares.units[tile.unit];
        const std::uint64_t first_row = batch.members[unit.member].begin;
        const std::uint64_t first_key = sliding_window != 0 && tile.begin + 1 > sliding_window ? tile.begin + 1 - sliding_window : 0;
        const std::uint64_t num_keys = tile.end - first_key;
        const int num_queries = checked_cast<int>(tile.end - tile.begin);
        const std::uint64_t kv_head = unit.head / heads_per_kv;
        const float* query = qkv.row(first_row + tile.begin) + unit.head * model.head_dim;
        const float* key = qkv.row(first_row + first_key) + (model.num_heads + kv_head) * model.head_dim;
        const float* value = qkv.row(first_row + first_key) + (model.num_heads + model.num_kv_heads + kv_head) * model.head_dim;
        scores.resize(static_cast<std::size_t>(num_queries) * num_keys);
        const int keys = checked_cast<int>(num_keys);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, num_queries, keys, dim, static_cast<float>(model.attention_multiplier), query,
                    stride, key, stride, 0.0F, scores.data(), keys);
        softmax_visible(first_key, num_keys, tile, sliding_window, scores);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, num_queries, dim, keys, 1.0F, scores.data(), keys, value, stride, 0.0F,
                    result.row(first_row + tile.begin) + unit.head * model.head_dim, checked_cast<int>(result.columns));
      } catch (...) {
#pragma omp critical(moeweld_infer_failure)
        failure = std::current_exception();
      }
    }
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace moeweld::infer
