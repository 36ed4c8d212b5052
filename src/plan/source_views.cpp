#include "plan/source_views.h"

#include <algorithm>
#include <optional>

namespace moeweld::plan {

namespace {

using Kind = SourceView::Kind;

SourceView node_over(Kind kind, std::vector<SourceView> views) {
  SourceView result;
  result.kind = kind;
  result.dtype = views.front().dtype;
  for (const SourceView& view : views) {
    result.dtype = view.dtype == result.dtype ? result.dtype : promote(result.dtype, view.dtype);
    result.num_elements += view.num_elements;
  }
  result.children = std::move(views);
  return result;
}

}  // namespace

SourceView bytes_of(const InputModel& input, const model::CatalogEntry& entry) {
  SourceView bytes = {.dtype = entry.dtype,
                      .file = input.first_file + entry.file,
                      .begin = entry.begin,
                      .num_elements = num_elements(entry.shape),
                      .columns = entry.shape.empty() ? 1 : entry.shape.back(),
                      .children = {}};
  if (!entry.scale) return bytes;
  SourceView scaled;
  scaled.kind = Kind::kBlockScaled;
  scaled.dtype = DType::kF32;
  scaled.num_elements = bytes.num_elements;
  scaled.columns = bytes.columns;
  scaled.first = entry.scale->first_row;
  scaled.children = {std::move(bytes),
                     {.dtype = entry.scale->dtype,
                      .file = input.first_file + entry.scale->file,
                      .begin = entry.scale->begin,
                      .num_elements = num_elements(entry.scale->shape),
                      .columns = entry.scale->shape.back(),
                      .children = {}}};
  return scaled;
}

DType usual_dtype(const SourceView& view) {
  if (view.kind == Kind::kBlockScaled) return DType::kBF16;
  std::optional<DType> result;
  for (const SourceView& child : view.children) {
    if (child.kind == Kind::kZeros) continue;
    const DType dtype = usual_dtype(child);
    result = !result || *result == dtype ? dtype : promote(*result, dtype);
  }
  return result.value_or(view.dtype);
}

std::uint64_t rows_of(const SourceView& view) { return view.columns == 0 ? 0 : view.num_elements / view.columns; }

SourceView zeros(DType dtype, std::uint64_t rows, std::uint64_t columns) {
  SourceView result;
  result.kind = Kind::kZeros;
  result.dtype = dtype;
  result.columns = columns;
  result.num_elements = rows * columns;
  return result;
}

SourceView stack_rows(std::vector<SourceView> views) {
  if (views.size() == 1) return std::move(views.front());
  SourceView result = node_over(Kind::kRows, std::move(views));
  result.columns = result.children.front().columns;
  return result;
}

SourceView join_columns(std::vector<SourceView> views) {
  if (views.size() == 1) return std::move(views.front());
  SourceView result = node_over(Kind::kColumns, std::move(views));
  for (const SourceView& child : result.children) result.columns += child.columns;
  return result;
}

SourceView slice_rows(SourceView view, std::uint64_t first, std::uint64_t count) {
  if (view.kind == Kind::kBytes) {
    view.begin += first * view.columns * size_bytes(view.dtype);
    view.num_elements = count * view.columns;
    return view;
  }
  if (view.kind == Kind::kBlockScaled) {
    view.children[0] = slice_rows(std::move(view.children[0]), first, count);
    view.num_elements = count * view.columns;
    view.first += first;
    return view;
  }
  SourceView result;
  result.kind = Kind::kRowSlice;
  result.dtype = view.dtype;
  result.columns = view.columns;
  result.num_elements = count * view.columns;
  result.first = first;
  result.children.push_back(std::move(view));
  return result;
}

SourceView slice_columns(SourceView view, std::uint64_t first, std::uint64_t count) {
  if (first == 0 && count == view.columns) return view;
  SourceView result;
  result.kind = Kind::kColumnSlice;
  result.dtype = view.dtype;
  result.columns = count;
  result.num_elements = rows_of(view) * count;
  result.first = first;
  result.children.push_back(std::move(view));
  return result;
}

}  // namespace moeweld::plan
