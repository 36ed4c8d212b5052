#pragma once
/// The gate, up and down matrices of an assembly's experts: copies of dense FFNs, parts of them, several side by side, varied or not.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "moeweld/merge/expert_variation.h"
#include "moeweld/plan/merge_plan.h"
#include "plan/input_models.h"

namespace moeweld::plan {

enum class FfnMatrix : std::uint8_t { kGate, kUp, kDown };

/// Where one expert's matrices come from and how they are changed.
struct ExpertSource {
  std::uint32_t model = 0;             ///< index into InputModels
  std::vector<std::uint32_t> indices;  ///< experts of a mixture: one, or one for each layer; empty: a dense FFN
  std::uint64_t shard = 0;             ///< of `num_shards` equal parts of the FFN's neurons
  std::uint64_t num_shards = 1;
  double noise_scale = 0;
  double residual_scale = 1;  ///< of the down matrix, after the noise
  double matrix_scale = 1;    ///< of gate, up and down: the recipe's
  double down_scale = 1;      ///< of down alone: the recipe's
  double redrawn_ratio = 0;
  int line = 0;
};

/// The dense model's matrix: role "mlp_gate_proj", ….
std::string_view dense_role(FfnMatrix matrix);

/// "expert_gate_proj", "shared_up_proj", …: which matrix of an FFN a role is; nothing for other roles.
std::optional<FfnMatrix> matrix_of(std::string_view role);

/// The source's matrix that goes into `layer`.
model::TensorKey source_key(const ExpertSource& source, FfnMatrix matrix, int layer);

/// The matrix of the expert that `parts` make together in `layer`: gate and up rows one below the other, down columns side by side, so that
/// outputs add up. Its dtype is `output_dtype`. Every part has the matrix, and equal hidden sizes. `neuron_set` names the expert for what
/// is drawn anew, equal for its three matrices. An unchanged matrix is a copy of bytes.
Operation expert_operation(std::string name, FfnMatrix matrix, std::span<const ExpertSource> parts, const InputModels& inputs, int layer,
                           DType output_dtype, std::uint64_t neuron_set, std::uint64_t seed);

/// The elements of a view as they are, converted where the types differ; shape [rows, columns].
Operation copy_view(std::string name, SourceView view, DType output_dtype);

/// Makes `operation` rows of `width` random numbers, of gate_mode random or uniform_random, by the operation's name.
void fill_with_random_rows(config::GateMode mode, std::uint64_t width, Operation& operation);

/// The mean of `views`, weighed: linear with `normalize`. One alone is a copy.
Operation weighted_mean(std::string name, std::vector<SourceView> views, const std::vector<double>& weights, Shape shape,
                        DType output_dtype, std::uint64_t seed);

/// A copy of one input's matrix, converted where the types differ.
Operation copy_operation(std::string name, const InputModel& input, const model::CatalogEntry& entry, DType output_dtype);

}  // namespace moeweld::plan
