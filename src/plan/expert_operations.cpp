#include "plan/expert_operations.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "moeweld/base/random.h"
#include "moeweld/merge/method.h"
#include "plan/source_views.h"

namespace moeweld::plan {

namespace {

std::uint32_t index_of(const merge::MethodRow& method) { return static_cast<std::uint32_t>(&method - merge::method_table().data()); }

/// From a view to an output type: bytes as they are where the types agree. passthrough's parameter, a factor, is NaN for none.
void pass_through(Operation& operation, SourceView view, DType output_dtype, double scale) {
  const bool as_it_is = scale == 1 && view.dtype == output_dtype;
  operation.kind = as_it_is ? Operation::Kind::kCopy : Operation::Kind::kMerge;
  operation.method = index_of(*merge::find_method("passthrough"));
  operation.task.output_dtype = output_dtype;
  operation.task.inputs = {{view.dtype, {scale == 1 ? std::numeric_limits<double>::quiet_NaN() : scale}}};
  operation.sources = {std::move(view)};
}

SourceView shard_of(SourceView view, FfnMatrix matrix, const ExpertSource& part) {
  if (part.num_shards == 1) return view;
  if (matrix == FfnMatrix::kDown) {
    const std::uint64_t width = view.columns / part.num_shards;
    return slice_columns(std::move(view), part.shard * width, width);
  }
  const std::uint64_t width = rows_of(view) / part.num_shards;
  return slice_rows(std::move(view), part.shard * width, width);
}

}  // namespace

std::string_view dense_role(FfnMatrix matrix) {
  constexpr std::string_view kRoles[] = {"mlp_gate_proj", "mlp_up_proj", "mlp_down_proj"};
  return kRoles[static_cast<std::size_t>(matrix)];
}

std::optional<FfnMatrix> matrix_of(std::string_view role) {
  for (const FfnMatrix matrix : {FfnMatrix::kGate, FfnMatrix::kUp, FfnMatrix::kDown}) {
    if (role.ends_with(dense_role(matrix).substr(4))) return matrix;
  }
  return std::nullopt;
}

model::TensorKey source_key(const ExpertSource& source, FfnMatrix matrix, int layer) {
  const std::string_view role = dense_role(matrix);
  if (source.indices.empty()) return {layer, -1, std::string(role)};
  const std::uint32_t index = source.indices.size() == 1 ? source.indices.front() : source.indices.at(static_cast<std::size_t>(layer));
  return {layer, static_cast<int>(index), "expert_" + std::string(role.substr(4))};
}

Operation expert_operation(std::string name, FfnMatrix matrix, std::span<const ExpertSource> parts, const InputModels& inputs, int layer,
                           DType output_dtype, std::uint64_t neuron_set, std::uint64_t seed) {
  merge::ExpertVariation variation;
  variation.axis = matrix == FfnMatrix::kDown ? merge::NeuronAxis::kColumns : merge::NeuronAxis::kRows;
  variation.neuron_set = neuron_set;
  std::vector<SourceView> views;
  for (const ExpertSource& part : parts) {
    const InputModel& input = inputs[part.model];
    views.push_back(shard_of(bytes_of(input, input.catalog.entries.at(source_key(part, matrix, layer))), matrix, part));
    const double scale = part.matrix_scale * (matrix == FfnMatrix::kDown ? part.down_scale * part.residual_scale : 1.0);
    const std::uint64_t neurons = matrix == FfnMatrix::kDown ? views.back().columns : rows_of(views.back());
    variation.groups.push_back({.noise_scale = part.noise_scale, .scale = scale, .num_neurons = neurons});
    variation.redrawn_ratio = std::max(variation.redrawn_ratio, part.redrawn_ratio);
  }
  Operation operation;
  operation.name = std::move(name);
  operation.task.tensor_key = stream_id(operation.name);
  operation.task.seed = seed;
  SourceView view = matrix == FfnMatrix::kDown ? join_columns(std::move(views)) : stack_rows(std::move(views));
  operation.task.shape = {rows_of(view), view.columns};
  const merge::NeuronGroup& first = variation.groups.front();
  const bool is_uniform = std::all_of(variation.groups.begin(), variation.groups.end(), [&](const merge::NeuronGroup& group) {
    return group.noise_scale == first.noise_scale && group.scale == first.scale;
  });
  if (is_uniform && first.noise_scale == 0 && variation.redrawn_ratio == 0) {
    pass_through(operation, std::move(view), output_dtype, first.scale);
    return operation;
  }
  operation.kind = Operation::Kind::kMerge;
  operation.method = index_of(merge::expert_variation());
  operation.task.output_dtype = output_dtype;
  operation.task.inputs = {{view.dtype, {}}};
  merge::set_variation(variation, operation.task);
  operation.sources = {std::move(view)};
  return operation;
}

void fill_with_random_rows(config::GateMode mode, std::uint64_t width, Operation& operation) {
  operation.kind = Operation::Kind::kRandomFill;
  operation.fill.stream = stream_id(operation.name);
  const bool normal = mode == config::GateMode::kRandom;
  operation.fill.distribution = normal ? Operation::RandomFill::Distribution::kNormal : Operation::RandomFill::Distribution::kUniform;
  operation.fill.scale = normal ? 1.0 : 1.0 / std::sqrt(static_cast<double>(width));
}

Operation weighted_mean(std::string name, std::vector<SourceView> views, const std::vector<double>& weights, Shape shape,
                        DType output_dtype, std::uint64_t seed) {
  if (views.size() == 1) {
    Operation copy = copy_view(std::move(name), std::move(views.front()), output_dtype);
    copy.task.shape = std::move(shape);
    return copy;
  }
  Operation operation;
  operation.kind = Operation::Kind::kMerge;
  operation.method = index_of(*merge::find_method("linear"));
  operation.task.tensor_key = stream_id(name);
  operation.name = std::move(name);
  operation.task.seed = seed;
  operation.task.shape = std::move(shape);
  operation.task.output_dtype = output_dtype;
  operation.task.parameters = {1.0};  // normalize
  for (std::size_t i = 0; i < views.size(); ++i) operation.task.inputs.push_back({views[i].dtype, {weights[i]}});
  operation.sources = std::move(views);
  return operation;
}

Operation copy_view(std::string name, SourceView view, DType output_dtype) {
  Operation operation;
  operation.name = std::move(name);
  operation.task.shape = {rows_of(view), view.columns};
  pass_through(operation, std::move(view), output_dtype, 1);
  return operation;
}

Operation copy_operation(std::string name, const InputModel& input, const model::CatalogEntry& entry, DType output_dtype) {
  Operation operation = copy_view(std::move(name), bytes_of(input, entry), output_dtype);
  operation.task.shape = entry.shape;
  return operation;
}

}  // namespace moeweld::plan
