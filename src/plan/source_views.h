#pragma once
/// Builds source views: matrices out of matrices.

#include <cstdint>
#include <vector>

#include "moeweld/model/catalog.h"
#include "moeweld/plan/merge_plan.h"
#include "plan/input_models.h"

namespace moeweld::plan {

/// One logical matrix of an input: its bytes, or, of block-scaled FP8, its values as F32.
SourceView bytes_of(const InputModel& input, const model::CatalogEntry& entry);

/// The type in which a view's values are written where nothing else is asked for: BF16 for block-scaled FP8, else its own.
DType usual_dtype(const SourceView& view);

std::uint64_t rows_of(const SourceView& view);

/// Nothing but zeros: [rows, columns].
SourceView zeros(DType dtype, std::uint64_t rows, std::uint64_t columns);

/// Matrices of equal width one below the other; the dtype is the one that holds all of theirs. One alone stays itself.
SourceView stack_rows(std::vector<SourceView> views);
/// Matrices of equal height side by side.
SourceView join_columns(std::vector<SourceView> views);
/// `count` rows from `first` on. Of a leaf, or of codes and scales, a shorter one.
SourceView slice_rows(SourceView view, std::uint64_t first, std::uint64_t count);
SourceView slice_columns(SourceView view, std::uint64_t first, std::uint64_t count);

}  // namespace moeweld::plan
