#pragma once
/// One logical matrix to be merged, without its data: what every phase of every method is given.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "moeweld/base/archive.h"
#include "moeweld/base/dtype.h"
#include "moeweld/base/shape.h"

namespace moeweld::merge {

/// Elements per block: the unit in which sums are formed. Depends on nothing but the tensor, so that results do not either.
constexpr std::uint64_t kBlockElements = std::uint64_t{1} << 18;

constexpr std::uint64_t num_blocks(std::uint64_t num_elements) { return (num_elements + kBlockElements - 1) / kBlockElements; }

/// One input of a task.
struct TaskInput {
  DType dtype{};  ///< arithmetic; may differ between inputs
  std::vector<double>
      parameters;  ///< per-model parameters, in the order of the method's per-model ParameterRows; the base's may be absent (NaN)
};

struct Task {
  Shape shape;
  DType output_dtype{};  ///< decides the arithmetic: float32 for F16 and BF16, float64 for F32 and F64
  std::vector<TaskInput> inputs;
  int base_index = -1;             ///< index into inputs, -1 if there is no base
  std::vector<double> parameters;  ///< shared parameters, in the order of the method's shared ParameterRows
  std::uint64_t tensor_key = 0;    ///< stream_id(tensor name): orders equal magnitudes, picks random streams
  std::uint64_t seed = 0;          ///< --random-seed

  std::uint64_t elements() const { return num_elements(shape); }
};

template <class Archive>
void serialize(Archive& archive, TaskInput& input) {
  archive(input.dtype, input.parameters);
}
template <class Archive>
void serialize(Archive& archive, Task& task) {
  archive(task.shape, task.output_dtype, task.inputs, task.base_index, task.parameters, task.tensor_key, task.seed);
}

/// What the phases so far have settled: plain numbers whose meaning the method's own file knows. Journaled and broadcast as they are.
struct Decisions {
  std::vector<double> reals;
  std::vector<std::uint64_t> integers;
  bool operator==(const Decisions&) const = default;
};

template <class Archive>
void serialize(Archive& archive, Decisions& decisions) {
  archive(decisions.reals, decisions.integers);
}

/// The same run of elements of every input: inputs[i] points at element `first_element` of input i, in its own dtype, naturally aligned for
/// it.
struct Elements {
  std::uint64_t first_element = 0;
  std::size_t num_elements = 0;
  std::span<const std::byte* const> inputs;
};

}  // namespace moeweld::merge
