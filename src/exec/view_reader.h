#pragma once
/// Evaluates source views: from an expression tree to contiguous elements in memory.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "exec/input_files.h"
#include "moeweld/plan/merge_plan.h"
#include "moeweld/storage/storage.h"

namespace moeweld::exec {

/// `orders` (MergePlan::orders, which outlive the reader) are what permuted rows and columns look up. One thread at a time. Files are read
/// in large aligned extents; where a node needs only columns of its child, whole rows are read in bands and picked from, so memory stays
/// bounded (view_scratch_bytes) whatever the size of the matrix.
class ViewReader {
 public:
  explicit ViewReader(InputFiles& files, std::span<const std::uint32_t> orders = {}) : files_(files), orders_(orders) {}

  /// Elements [first, first + count) of `view`, in its dtype, to `target` (aligned for the dtype). Returns the bytes read from files.
  /// Throws Error(kInternal) for a tree whose parts do not fit each other.
  std::uint64_t read(const plan::SourceView& view, std::uint64_t first, std::uint64_t count, std::byte* target);

  /// Of the last read(): FP8 codes that are NaN.
  std::uint64_t num_nan_codes() const { return num_nan_codes_; }

 private:
  void evaluate(const plan::SourceView& view, std::uint64_t first, std::uint64_t count, std::byte* target, std::size_t depth);
  void evaluate_as(DType dtype, const plan::SourceView& view, std::uint64_t first, std::uint64_t count, std::byte* target,
                   std::size_t depth);
  void read_leaf(const plan::SourceView& leaf, std::uint64_t first, std::uint64_t count, std::byte* target);
  /// Calls visit(bytes, num_bytes) for the leaf's bytes, extent by extent.
  template <class Visit>
  void for_extents(const plan::SourceView& leaf, std::uint64_t first, std::uint64_t count, Visit&& visit);
  void read_file(const plan::SourceView& leaf, std::uint64_t first, std::uint64_t count, std::byte* target);
  void stack_rows(const plan::SourceView& view, std::uint64_t first, std::uint64_t count, std::byte* target, std::size_t depth);
  void scale_blocks(const plan::SourceView& view, std::uint64_t first, std::uint64_t count, std::byte* target, std::size_t depth);
  const std::vector<float>& scales_of(const plan::SourceView& scales, std::size_t depth);
  void place_columns(const plan::SourceView& view, std::uint64_t first, std::uint64_t count, std::byte* target, std::size_t depth);
  void permute_rows(const plan::SourceView& view, std::uint64_t first, std::uint64_t count, std::byte* target, std::size_t depth);
  void permute_columns(const plan::SourceView& view, std::uint64_t first, std::uint64_t count, std::byte* target, std::size_t depth);
  /// The `count` numbers of a permuted view, each below `count`.
  std::span<const std::uint32_t> order_of(const plan::SourceView& view, std::uint64_t count) const;
  std::byte* scratch(std::size_t index, std::size_t num_bytes);

  InputFiles& files_;
  const std::span<const std::uint32_t> orders_;
  AlignedBuffer extent_;
  std::vector<std::vector<std::byte>> scratch_;  ///< two per level of the tree: rows of a child, and rows before their conversion
  /// Scales of the matrices read last: a unit is a small part of a matrix.
  struct Scales {
    std::uint32_t file = 0;
    std::uint64_t begin = 0;
    std::vector<float> values;
  };
  std::vector<Scales> scales_;
  std::size_t next_scales_ = 0;
  std::uint64_t read_bytes_ = 0;
  std::uint64_t num_nan_codes_ = 0;
};

/// The most memory that evaluating the view takes, beyond the target; 0 for a leaf, which is read without a ViewReader.
std::uint64_t view_scratch_bytes(const plan::SourceView& view);

}  // namespace moeweld::exec
