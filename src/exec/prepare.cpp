#include "exec/prepare.h"

#include <cmath>
#include <limits>

#include "exec/exchange.h"
#include "exec/expert_weights.h"
#include "exec/hidden_rows.h"
#include "exec/orthogonal_rows.h"
#include "exec/router_condition.h"
#include "exec/unit_reader.h"
#include "moeweld/base/checked.h"
#include "moeweld/merge/measure.h"

namespace moeweld::exec {

namespace {

/// A shorter vector has no direction worth scaling up.
constexpr double kSmallestNorm = 1e-8;

void make_unit(std::span<double> vector) {
  double sum = 0;
  for (const double value : vector) sum += value * value;
  const double norm = std::sqrt(sum);
  if (norm <= kSmallestNorm) return;
  for (double& value : vector) value /= norm;
}

class EmbeddingRows {
 public:
  EmbeddingRows(const plan::Slot& slot, InputFiles& files) : slot_(slot), file_(files.open(slot.embedding.file)) {}

  /// Adds the embedding of token `id` to `sum`.
  void add(std::int64_t id, std::span<double> sum) {
    const std::size_t row_bytes = sum.size() * size_bytes(slot_.embedding.dtype);
    bytes_.resize(row_bytes);
    file_->read(slot_.embedding.begin + static_cast<std::uint64_t>(id) * row_bytes, bytes_);
    decoded_.resize(sum.size());
    merge::Task task;
    task.shape = {sum.size()};
    task.output_dtype = DType::kF64;
    task.inputs = {{slot_.embedding.dtype, {std::numeric_limits<double>::quiet_NaN()}}};
    const std::byte* input = bytes_.data();
    merge::apply_elements(*merge::find_method("passthrough"), task, {},
                          {.first_element = 0, .num_elements = sum.size(), .inputs = std::span(&input, 1)},
                          reinterpret_cast<std::byte*>(decoded_.data()));
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += decoded_[i];
  }

 private:
  const plan::Slot& slot_;
  std::shared_ptr<InputFile> file_;
  std::vector<std::byte> bytes_;
  std::vector<double> decoded_;
};

std::vector<double> prompt_direction(const std::vector<std::vector<std::int64_t>>& prompts, std::size_t width, EmbeddingRows& rows) {
  std::vector<double> sum(width);
  for (const std::vector<std::int64_t>& prompt : prompts) {
    for (const std::int64_t id : prompt) rows.add(id, sum);
  }
  make_unit(sum);
  return sum;
}

std::vector<double> cheap_embed(const plan::Slot& slot, EmbeddingRows& rows) {
  const std::size_t width = slot.shape.at(1);
  std::vector<double> result;
  result.reserve(slot.positive_ids.size() * width);
  for (std::size_t expert = 0; expert < slot.positive_ids.size(); ++expert) {
    std::vector<double> row = prompt_direction(slot.positive_ids.at(expert), width, rows);
    if (expert < slot.negative_ids.size() && !slot.negative_ids[expert].empty()) {
      const std::vector<double> negative = prompt_direction(slot.negative_ids[expert], width, rows);
      for (std::size_t i = 0; i < width; ++i) row[i] -= negative[i];
      make_unit(row);
    }
    result.insert(result.end(), row.begin(), row.end());
  }
  fold_shared_rows(slot.num_shared, width, result);
  return result;
}

}  // namespace

void fold_shared_rows(std::uint32_t num_shared, std::size_t width, std::vector<double>& rows) {
  if (num_shared == 0) return;
  const std::size_t first = rows.size() - num_shared * width;
  std::vector<double> gate(width);
  for (std::size_t i = first; i < rows.size(); ++i) gate[(i - first) % width] += rows[i] / num_shared;
  make_unit(gate);
  rows.resize(first);
  rows.insert(rows.end(), gate.begin(), gate.end());
}

std::vector<double> cheap_embed_rows(Peers& peers, Storage& storage, const plan::MergePlan& plan, const plan::Slot& slot, IoMode io) {
  const auto gathered = exchange(peers, [&] {
    std::vector<double> rows;
    if (peers.rank() == 0) {
      InputFiles files(storage, plan, io);
      EmbeddingRows embedding(slot, files);
      rows = cheap_embed(slot, embedding);
    }
    return to_archive(rows);
  });
  return from_archive<std::vector<double>>(gathered.front());
}

PreparedSlots prepare_slots(Peers& peers, Storage& storage, const plan::MergePlan& plan, const ExecuteOptions& options) {
  PreparedSlots prepared;
  for (const plan::Slot& slot : plan.slots) {
    switch (slot.kind) {
      case plan::Slot::Kind::kCheapEmbedRouter:
        prepared.rows.push_back(cheap_embed_rows(peers, storage, plan, slot, options.io));
        break;
      case plan::Slot::Kind::kHiddenRouter:
        prepared.rows.push_back(hidden_rows(peers, storage, slot, options, prepared.blas_core));
        break;
      case plan::Slot::Kind::kOrthogonalRouter:
        prepared.rows.push_back(orthogonal_rows(slot, plan.seed, options.threads));
        break;
      case plan::Slot::Kind::kExpertWeights:
        prepared.rows.push_back(expert_weights(peers, storage, plan, slot, options.io));
        continue;  // no router rows, which could be degenerate
    }
    if (const auto warning = degenerate_layers(slot, prepared.rows.back(), options.threads)) prepared.warnings.push_back(*warning);
  }
  if (const auto warning = degenerate_random_routers(peers, plan, options.threads)) prepared.warnings.push_back(*warning);
  prepared.expert_orders = find_expert_orders(peers, storage, plan, options);
  return prepared;
}

}  // namespace moeweld::exec
