#include "exec/expert_weights.h"

#include <cmath>
#include <limits>

#include "exec/exchange.h"
#include "exec/view_reader.h"
#include "moeweld/base/error.h"
#include "moeweld/merge/measure.h"

namespace moeweld::exec {

namespace {

std::vector<double> read_matrix(const plan::SourceView& view, ViewReader& views) {
  std::vector<double> storage((view.num_elements * size_bytes(view.dtype) + sizeof(double) - 1) / sizeof(double));  // aligned
  auto* bytes = reinterpret_cast<std::byte*>(storage.data());
  views.read(view, 0, view.num_elements, bytes);
  std::vector<double> result(view.num_elements);
  merge::Task task;
  task.shape = {view.num_elements};
  task.output_dtype = DType::kF64;
  task.inputs = {{view.dtype, {std::numeric_limits<double>::quiet_NaN()}}};
  const std::byte* input = bytes;
  merge::apply_elements(*merge::find_method("passthrough"), task, {},
                        {.first_element = 0, .num_elements = view.num_elements, .inputs = std::span(&input, 1)},
                        reinterpret_cast<std::byte*>(result.data()));
  return result;
}

}  // namespace

std::vector<double> router_norm_weights(const std::vector<double>& rows, std::size_t num_experts) {
  const std::size_t width = rows.size() / num_experts;
  std::vector<double> mean(width);
  for (std::size_t i = 0; i < rows.size(); ++i) mean[i % width] += rows[i] / static_cast<double>(num_experts);
  std::vector<double> weights(num_experts);
  double sum = 0;
  for (std::size_t expert = 0; expert < num_experts; ++expert) {
    double square = 0;
    for (std::size_t i = 0; i < width; ++i) {
      const double difference = rows[expert * width + i] - mean[i];
      square += difference * difference;
    }
    weights[expert] = std::sqrt(square);
    sum += weights[expert];
  }
  if (!std::isfinite(sum)) throw Error(ErrorCode::kInvalidInput, "a router row has values that are NaN or infinite, so it weighs nothing");
  for (double& weight : weights) weight = sum > 0 ? weight / sum : 1.0 / static_cast<double>(num_experts);
  return weights;
}

std::vector<double> expert_weights(Peers& peers, Storage& storage, const plan::MergePlan& plan, const plan::Slot& slot, IoMode io) {
  const auto gathered = exchange(peers, [&] {
    std::vector<double> weights;
    if (peers.rank() == 0) {
      InputFiles files(storage, plan, io);
      ViewReader views(files);
      for (const plan::SourceView& router : slot.routers) {
        const std::vector<double> own = router_norm_weights(read_matrix(router, views), slot.shape.at(1));
        weights.insert(weights.end(), own.begin(), own.end());
      }
    }
    return to_archive(weights);
  });
  return from_archive<std::vector<double>>(gathered.front());
}

void decide_expert_weights(RankPipeline& pipeline) {
  for (std::uint32_t index = 0; index < pipeline.plan.operations.size(); ++index) {
    const plan::Operation& operation = pipeline.plan.operations[index];
    if (operation.kind != plan::Operation::Kind::kMerge || pipeline.method_of(operation).name != "router_weighted") continue;
    const std::vector<double>& weights = pipeline.slot_rows.at(operation.slot);
    const auto first = weights.begin() + static_cast<std::ptrdiff_t>(operation.fill.first_index);
    pipeline.decided[index].reals.assign(first, first + static_cast<std::ptrdiff_t>(operation.sources.size()));
  }
}

}  // namespace moeweld::exec
