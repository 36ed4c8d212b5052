#pragma once
/// Compares two checkpoints tensor by tensor.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "moeweld/base/dtype.h"
#include "moeweld/base/peers.h"
#include "moeweld/base/shape.h"
#include "moeweld/formats/checkpoint.h"
#include "moeweld/storage/storage.h"

namespace moeweld::verify {

/// One matrix as one of the two models stores it.
struct DiffSide {
  std::string path;  ///< file
  FileIdentity identity;
  DType dtype{};
  Shape shape;
  std::uint64_t begin = 0;  ///< first byte in the file
};

/// What two tensors of equal shape and arithmetic type (F64, F32, F16, BF16; not necessarily the same) have to do with each other. All
/// figures are float64; F32 and F64 are read exactly. Elements that are NaN or infinite on either side count in non_finite and nowhere
/// else.
struct DiffFigures {
  double max_difference = 0;      ///< largest |a - b|
  std::uint64_t max_element = 0;  ///< the first element that has it
  double dot = 0;                ///< sum of a·b, of a² and of b²: per 2^18 elements, added in order, so the same for any number of ranks
  double squares_a = 0;          ///< …
  double squares_b = 0;          ///< …
  std::uint64_t different = 0;   ///< elements whose bytes (or, with unlike types, values) differ
  std::uint64_t non_finite = 0;  ///< elements without a difference

  /// Nothing where one of the two is all zeros.
  std::optional<double> cosine() const;
};

struct TensorDiff {
  std::string name;  ///< as A calls it; for experts stored in unlike layouts the per-expert name
  DiffSide a;
  DiffSide b;
  bool equal = false;                  ///< same dtype, same shape, same bytes
  std::optional<DiffFigures> figures;  ///< none for unlike shapes
  bool has_values = false;             ///< the type is arithmetic: max_difference and sums mean something
};

struct DiffReport {
  std::vector<TensorDiff> tensors;  ///< in A's order
  std::vector<std::string> only_in_a;
  std::vector<std::string> only_in_b;
  std::uint64_t read_bytes = 0;
  double seconds = 0;

  bool equal() const;
};

/// Which tensor of A is compared with which of B. Tensors of one name are pairs; what then is left over is matched through the family's
/// table, so that a per-expert and a fused Mixtral can be compared. No data is read.
DiffReport pair_tensors(const formats::Checkpoint& a, const formats::Checkpoint& b);

/// Compares all tensors, their elements shared out over the ranks, each with `threads` threads. `pair` is called on rank 0 alone (it reads
/// headers, see pair_tensors). `progress` is called a few times a second with the bytes read so far. Every rank returns the same report
/// (but seconds). Collective. Throws the same Error on every rank: what `pair` throws, files that changed in between, failed reads.
DiffReport diff(Peers& peers, Storage& storage, const std::function<DiffReport()>& pair, int threads,
                const std::function<void(std::uint64_t)>& progress);

}  // namespace moeweld::verify
