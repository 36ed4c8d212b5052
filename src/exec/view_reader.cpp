#include "exec/view_reader.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "moeweld/base/checked.h"
#include "moeweld/base/error.h"
#include "moeweld/merge/block_scales.h"
#include "moeweld/merge/decode.h"
#include "moeweld/merge/method.h"

namespace moeweld::exec {

namespace {

using plan::SourceView;

constexpr std::uint64_t kExtentBytes = 4 * kMiB;
/// Rows of a child evaluated at a time; at least one row, however long.
constexpr std::uint64_t kBandBytes = 4 * kMiB;
constexpr std::uint64_t kConversionBytes = kMiB;
/// More matrices than an operation has sources, as a rule.
constexpr std::size_t kScalesKept = 8;

[[noreturn]] void fail(const char* what) { throw Error(ErrorCode::kInternal, std::string("a planned source view ") + what); }

/// Where columns of one child stand in the view: `count` columns from the child's column `from` become the view's from column `to` on.
struct ColumnRun {
  const SourceView* child = nullptr;
  std::uint64_t from = 0;
  std::uint64_t to = 0;
  std::uint64_t count = 0;
};

std::vector<ColumnRun> column_runs(const SourceView& view) {
  std::vector<ColumnRun> runs;
  std::uint64_t column = 0;
  for (const SourceView& child : view.children) {
    const bool slice = view.kind == SourceView::Kind::kColumnSlice;
    runs.push_back({&child, slice ? view.first : 0, column, slice ? view.columns : child.columns});
    if (child.columns == 0 || runs.back().from + runs.back().count > child.columns) fail("takes columns that its child has not");
    if (child.num_elements / child.columns * view.columns != view.num_elements) fail("and its child have unlike numbers of rows");
    column += runs.back().count;
  }
  if (column != view.columns || view.columns == 0) fail("has another width than its children");
  return runs;
}

std::uint64_t row_bytes(const SourceView& view, const SourceView& child) { return child.columns * size_bytes(view.dtype); }

/// One thread: the reader has no team of its own, and the computation has the others.
void convert(DType from, DType to, std::uint64_t count, const std::byte* source, std::byte* target) {
  static const merge::MethodRow& passthrough = *merge::find_method("passthrough");
  merge::Task task;
  task.shape = {count};
  task.output_dtype = to;
  task.inputs = {{from, {std::numeric_limits<double>::quiet_NaN()}}};
  passthrough.apply(task, {}, {.first_element = 0, .num_elements = count, .inputs = std::span(&source, 1)}, target);
}

template <std::size_t kSize>
void gather(const std::byte* row, std::span<const std::uint32_t> columns, std::byte* target) {
  for (const std::uint32_t column : columns) {
    std::memcpy(target, row + column * kSize, kSize);
    target += kSize;
  }
}

std::uint64_t scratch_below(const SourceView& view) {
  // Scales are kept from one read to the next.
  if (view.kind == SourceView::Kind::kBlockScaled) return (kScalesKept + 1) * view.children.at(1).num_elements * sizeof(double);
  std::uint64_t most = 0;
  for (const SourceView& child : view.children) {
    std::uint64_t own = 2 * kConversionBytes;
    if (view.kind == SourceView::Kind::kColumns || view.kind == SourceView::Kind::kColumnSlice ||
        view.kind == SourceView::Kind::kPermutedColumns) {
      own += std::max(kBandBytes, row_bytes(view, child));
    }
    most = std::max(most, own + scratch_below(child));
  }
  return most;
}

}  // namespace

std::uint64_t view_scratch_bytes(const SourceView& view) {
  return view.kind == SourceView::Kind::kBytes ? 0 : kExtentBytes + scratch_below(view);
}

std::uint64_t ViewReader::read(const SourceView& view, std::uint64_t first, std::uint64_t count, std::byte* target) {
  read_bytes_ = 0;
  num_nan_codes_ = 0;
  evaluate(view, first, count, target, 0);
  return read_bytes_;
}

void ViewReader::evaluate(const SourceView& view, std::uint64_t first, std::uint64_t count, std::byte* target, std::size_t depth) {
  if (count == 0) return;
  if (first + count > view.num_elements) fail("is asked for elements beyond its end");
  switch (view.kind) {
    case SourceView::Kind::kBytes:
      read_leaf(view, first, count, target);
      return;
    case SourceView::Kind::kZeros:
      std::memset(target, 0, count * size_bytes(view.dtype));
      return;
    case SourceView::Kind::kRows:
      stack_rows(view, first, count, target, depth);
      return;
    case SourceView::Kind::kRowSlice:
      evaluate_as(view.dtype, view.children.at(0), view.first * view.columns + first, count, target, depth);
      return;
    case SourceView::Kind::kColumns:
    case SourceView::Kind::kColumnSlice:
      place_columns(view, first, count, target, depth);
      return;
    case SourceView::Kind::kPermutedRows:
      permute_rows(view, first, count, target, depth);
      return;
    case SourceView::Kind::kPermutedColumns:
      permute_columns(view, first, count, target, depth);
      return;
    case SourceView::Kind::kBlockScaled:
      scale_blocks(view, first, count, target, depth);
      return;
  }
}

void ViewReader::evaluate_as(DType dtype, const SourceView& view, std::uint64_t first, std::uint64_t count, std::byte* target,
                             std::size_t depth) {
  if (view.dtype == dtype) {
    evaluate(view, first, count, target, depth + 1);
    return;
  }
  const std::uint64_t step = kConversionBytes / size_bytes(view.dtype);
  for (std::uint64_t done = 0; done < count; done += step) {
    const std::uint64_t part = std::min(step, count - done);
    std::byte* source = scratch(2 * depth, part * size_bytes(view.dtype));
    evaluate(view, first + done, part, source, depth + 1);
    convert(view.dtype, dtype, part, source, target + done * size_bytes(dtype));
  }
}

template <class Visit>
void ViewReader::for_extents(const SourceView& leaf, std::uint64_t first, std::uint64_t count, Visit&& visit) {
  if (extent_.size() == 0) extent_ = AlignedBuffer(kExtentBytes);
  const std::shared_ptr<InputFile> file = files_.open(leaf.file);
  std::uint64_t position = leaf.begin + first * size_bytes(leaf.dtype);
  const std::uint64_t end = position + count * size_bytes(leaf.dtype);
  if (end > file->identity().size_bytes)
    throw Error(ErrorCode::kInvalidInput, "was cut after the merge was planned: it ends before what is read of it", file->path());
  while (position < end) {
    const std::uint64_t extent_begin = round_down(position, kDirectAlignment);
    const std::uint64_t extent_end = std::min(extent_begin + kExtentBytes, round_up(end, kDirectAlignment));
    file->read(extent_begin, extent_.span().first(extent_end - extent_begin));
    const std::uint64_t num_bytes = std::min(extent_end, end) - position;
    visit(extent_.data() + (position - extent_begin), num_bytes);
    position += num_bytes;
    read_bytes_ += num_bytes;
  }
}

void ViewReader::read_leaf(const SourceView& leaf, std::uint64_t first, std::uint64_t count, std::byte* target) {
  const std::size_t element_size = size_bytes(leaf.dtype);
  const KeptReads::Bytes kept =
      files_.kept().get({leaf.file, leaf.begin, leaf.num_elements * element_size},
                        [&](std::vector<std::byte>& bytes) { read_file(leaf, 0, leaf.num_elements, bytes.data()); });
  if (kept) {
    std::memcpy(target, kept->data() + first * element_size, count * element_size);
  } else {
    read_file(leaf, first, count, target);
  }
}

void ViewReader::read_file(const SourceView& leaf, std::uint64_t first, std::uint64_t count, std::byte* target) {
  for_extents(leaf, first, count, [&](const std::byte* bytes, std::uint64_t num_bytes) {
    std::memcpy(target, bytes, num_bytes);
    target += num_bytes;
  });
}

const std::vector<float>& ViewReader::scales_of(const SourceView& scales, std::size_t depth) {
  for (const Scales& known : scales_) {
    if (known.file == scales.file && known.begin == scales.begin && known.values.size() == scales.num_elements) return known.values;
  }
  if (scales_.size() < kScalesKept) scales_.emplace_back();
  Scales& own = scales_[next_scales_++ % kScalesKept];
  std::byte* bytes = scratch(2 * depth, scales.num_elements * size_bytes(scales.dtype));
  read_leaf(scales, 0, scales.num_elements, bytes);
  own.file = scales.file;
  own.begin = scales.begin;
  own.values.resize(scales.num_elements);
  merge::decode_elements(scales.dtype, bytes, own.values);
  return own.values;
}

void ViewReader::scale_blocks(const SourceView& view, std::uint64_t first, std::uint64_t count, std::byte* target, std::size_t depth) {
  const SourceView& codes = view.children.at(0);
  const SourceView& scales = view.children.at(1);
  const bool leaves = codes.kind == SourceView::Kind::kBytes && scales.kind == SourceView::Kind::kBytes;
  if (!leaves || codes.dtype != DType::kF8E4M3 || view.dtype != DType::kF32) fail("has scales of something else than codes of FP8");
  if (view.columns == 0 || codes.num_elements != view.num_elements || scales.columns != merge::num_scale_blocks(view.columns) ||
      scales.num_elements / scales.columns < merge::num_scale_blocks(view.first + view.num_elements / view.columns)) {
    fail("has other scales than its codes need");
  }
  const std::vector<float>& values = scales_of(scales, depth);
  auto* place = reinterpret_cast<float*>(target);
  std::uint64_t element = first;
  for_extents(codes, first, count, [&](const std::byte* bytes, std::uint64_t num_bytes) {
    for (const std::byte* end = bytes + num_bytes; bytes != end;) {
      const std::uint64_t column = element % view.columns;
      const std::uint64_t part = std::min<std::uint64_t>(view.columns - column, static_cast<std::uint64_t>(end - bytes));
      const float* row_scales = values.data() + (view.first + element / view.columns) / kScaleBlock * scales.columns;
      num_nan_codes_ += merge::decode_block_scaled(bytes, column, row_scales, {place, part});
      bytes += part;
      place += part;
      element += part;
    }
  });
}

void ViewReader::stack_rows(const SourceView& view, std::uint64_t first, std::uint64_t count, std::byte* target, std::size_t depth) {
  std::uint64_t child_begin = 0;
  for (const SourceView& child : view.children) {
    const std::uint64_t begin = std::max(first, child_begin);
    const std::uint64_t end = std::min(first + count, child_begin + child.num_elements);
    if (begin < end) {
      evaluate_as(view.dtype, child, begin - child_begin, end - begin, target + (begin - first) * size_bytes(view.dtype), depth);
    }
    child_begin += child.num_elements;
  }
  if (child_begin != view.num_elements) fail("has another size than its children");
}

void ViewReader::place_columns(const SourceView& view, std::uint64_t first, std::uint64_t count, std::byte* target, std::size_t depth) {
  const std::size_t element_size = size_bytes(view.dtype);
  const std::uint64_t end = first + count;
  for (const ColumnRun& run : column_runs(view)) {
    const std::uint64_t end_row = (end + view.columns - 1) / view.columns;
    const std::uint64_t band = std::max<std::uint64_t>(1, kBandBytes / row_bytes(view, *run.child));
    for (std::uint64_t row = first / view.columns; row < end_row; row += band) {
      const std::uint64_t num_rows = std::min(band, end_row - row);
      const std::uint64_t num_child = num_rows * run.child->columns;
      std::byte* rows = scratch(2 * depth + 1, num_child * element_size);
      evaluate_as(view.dtype, *run.child, row * run.child->columns, num_child, rows, depth);
      for (std::uint64_t i = 0; i < num_rows; ++i) {
        // This row's columns of the view that are wanted and come from this child.
        const std::uint64_t row_begin = (row + i) * view.columns;
        const std::uint64_t from = std::max(first, row_begin + run.to);
        const std::uint64_t to = std::min(end, row_begin + run.to + run.count);
        if (from >= to) continue;
        const std::uint64_t child_column = run.from + (from - row_begin - run.to);
        std::memcpy(target + (from - first) * element_size, rows + (i * run.child->columns + child_column) * element_size,
                    (to - from) * element_size);
      }
    }
  }
}

std::span<const std::uint32_t> ViewReader::order_of(const SourceView& view, std::uint64_t count) const {
  const SourceView& child = view.children.at(0);
  if (child.num_elements != view.num_elements || child.dtype != view.dtype) fail("and its permuted child are unlike");
  if (view.first + count > orders_.size()) fail("is in an order that is not known");
  return orders_.subspan(view.first, count);
}

void ViewReader::permute_rows(const SourceView& view, std::uint64_t first, std::uint64_t count, std::byte* target, std::size_t depth) {
  const std::uint64_t columns = std::max<std::uint64_t>(1, view.columns);
  const std::uint64_t num_rows = view.num_elements / columns;
  const std::span<const std::uint32_t> order = order_of(view, num_rows);
  const std::uint64_t end = first + count;
  for (std::uint64_t done = first; done < end;) {
    // Neighbours that stay neighbours are read at once.
    const std::uint64_t row = done / columns;
    std::uint64_t last = row + 1;
    while (last * columns < end && order[last] == order[last - 1] + 1) ++last;
    const std::uint64_t part = std::min(end, last * columns) - done;
    if (order[row] + (last - row) > num_rows) fail("has rows that its child has not");
    evaluate(view.children[0], order[row] * columns + (done - row * columns), part, target, depth + 1);
    target += part * size_bytes(view.dtype);
    done += part;
  }
}

void ViewReader::permute_columns(const SourceView& view, std::uint64_t first, std::uint64_t count, std::byte* target, std::size_t depth) {
  const SourceView& child = view.children.at(0);
  const std::uint64_t columns = view.columns;
  if (columns == 0 || child.columns != columns) fail("has another width than its permuted child");
  const std::span<const std::uint32_t> order = order_of(view, columns);
  if (std::any_of(order.begin(), order.end(), [&](std::uint32_t column) { return column >= columns; }))
    fail("takes columns that its child has not");
  const std::size_t element_size = size_bytes(view.dtype);
  const std::uint64_t end = first + count;
  const std::uint64_t end_row = (end + columns - 1) / columns;
  const std::uint64_t band = std::max<std::uint64_t>(1, kBandBytes / row_bytes(view, child));
  for (std::uint64_t row = first / columns; row < end_row; row += band) {
    const std::uint64_t num_rows = std::min(band, end_row - row);
    std::byte* rows = scratch(2 * depth + 1, num_rows * columns * element_size);
    evaluate(child, row * columns, num_rows * columns, rows, depth + 1);
    for (std::uint64_t i = 0; i < num_rows; ++i) {
      const std::uint64_t row_begin = (row + i) * columns;
      const std::uint64_t from = std::max(first, row_begin);
      const std::uint64_t to = std::min(end, row_begin + columns);
      const auto wanted = order.subspan(from - row_begin, to - from);
      const std::byte* source = rows + i * columns * element_size;
      std::byte* place = target + (from - first) * element_size;
      switch (element_size) {
        case 1:
          gather<1>(source, wanted, place);
          break;
        case 2:
          gather<2>(source, wanted, place);
          break;
        case 4:
          gather<4>(source, wanted, place);
          break;
        default:
          gather<8>(source, wanted, place);
      }
    }
  }
}

std::byte* ViewReader::scratch(std::size_t index, std::size_t num_bytes) {
  if (scratch_.size() <= index) scratch_.resize(index + 1);
  if (scratch_[index].size() < num_bytes) scratch_[index].resize(num_bytes);
  return scratch_[index].data();
}

}  // namespace moeweld::exec
