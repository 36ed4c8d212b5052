#pragma once
/// The matrices of one expert, as their checkpoint stores them.

#include <cstddef>
#include <cstdint>
#include <span>

#include "moeweld/base/dtype.h"

namespace moeweld::align {

/// One matrix, row-major; the bytes need not be aligned for the dtype and belong to somebody else.
struct StoredMatrix {
  DType dtype{};  ///< arithmetic
  const std::byte* data = nullptr;
};

/// gate and up are [num_neurons, hidden], down is [hidden, num_neurons]. Neuron n is row n of gate, row n of up and column n of down
/// together: 3·hidden numbers.
struct ExpertMatrices {
  std::uint64_t num_neurons = 0;
  std::uint64_t hidden = 0;
  StoredMatrix gate;
  StoredMatrix up;
  StoredMatrix down;
};

/// Where experts of one layer of one model come from.
class ExpertSource {
 public:
  virtual ~ExpertSource() = default;
  /// Valid until the next call.
  virtual const ExpertMatrices& load(std::uint32_t expert) = 0;
};

}  // namespace moeweld::align
