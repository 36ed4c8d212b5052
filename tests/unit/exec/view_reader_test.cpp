#include "exec/view_reader.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <vector>

#include "unit/expect_error.h"
#include "unit/temporary_directory.h"

namespace moeweld::exec {
namespace {

using plan::SourceView;

using Matrix = std::vector<std::vector<float>>;

/// Two F32 matrices and the same values as BF16 in one file, at odd places.
class ViewReaderTest : public testing::Test {
 protected:
  ViewReaderTest() {
    std::ofstream file(directory_ / "data", std::ios::binary);
    std::string bytes(5, '?');
    left_ = add(6, 10, 0, DType::kF32, bytes);
    right_ = add(6, 7, 100, DType::kF32, bytes);
    narrow_ = add(6, 10, 0, DType::kBF16, bytes);
    codes_ = {.dtype = DType::kF8E4M3, .file = 0, .begin = bytes.size(), .num_elements = 200 * 150, .columns = 150, .children = {}};
    for (std::uint64_t i = 0; i < codes_.num_elements; ++i) bytes += kCodes[i % 3].first;
    scales_ = add(3, 2, 1000, DType::kF32, bytes);
    file << bytes;
    file.close();
    storage_ = make_posix_storage();
    plan_.input_files.push_back({directory_ / "data", storage_->identity(directory_ / "data").value(), 0});
  }

  /// Values first, first + 1, …: small whole numbers, exact in BF16.
  static SourceView add(std::uint64_t rows, std::uint64_t columns, int first, DType dtype, std::string& bytes) {
    SourceView view{.dtype = dtype, .file = 0, .begin = bytes.size(), .num_elements = rows * columns, .columns = columns, .children = {}};
    for (std::uint64_t i = 0; i < rows * columns; ++i) {
      const auto value = static_cast<float>(first + static_cast<int>(i));
      char data[4];
      std::memcpy(data, &value, 4);
      bytes.append(dtype == DType::kF32 ? data : data + 2, size_bytes(dtype));
    }
    return view;
  }

  static SourceView node(SourceView::Kind kind, std::vector<SourceView> children, std::uint64_t rows, std::uint64_t columns,
                         std::uint64_t first = 0) {
    SourceView view;
    view.kind = kind;
    view.dtype = DType::kF32;
    view.num_elements = rows * columns;
    view.columns = columns;
    view.first = first;
    view.children = std::move(children);
    return view;
  }

  /// Every run of elements must be that of the matrix.
  void expect_matrix(const SourceView& view, const std::function<float(std::uint64_t row, std::uint64_t column)>& expected) {
    InputFiles files(*storage_, plan_, IoMode::kBuffered);
    ViewReader reader(files, orders_);
    for (std::uint64_t first = 0; first < view.num_elements; ++first) {
      for (std::uint64_t end = first; end <= view.num_elements; end += 3) {
        std::vector<float> result(end - first, -1.0F);
        reader.read(view, first, end - first, reinterpret_cast<std::byte*>(result.data()));
        for (std::uint64_t i = first; i < end; ++i) {
          ASSERT_EQ(result[i - first], expected(i / view.columns, i % view.columns)) << first << " to " << end << " at " << i;
        }
      }
    }
  }

  static float left(std::uint64_t row, std::uint64_t column) { return static_cast<float>(row * 10 + column); }
  static float right(std::uint64_t row, std::uint64_t column) { return static_cast<float>(100 + row * 7 + column); }

  TemporaryDirectory directory_;
  std::shared_ptr<Storage> storage_;
  plan::MergePlan plan_;
  std::vector<std::uint32_t> orders_ = {9, 9, 3, 4, 5, 0, 2, 1, 8, 0, 7, 5, 6, 3, 9, 2, 1, 4};  // rows from 2 on, columns from 8 on
  SourceView left_, right_, narrow_;

  static constexpr std::pair<char, float> kCodes[] = {{'\x38', 1.0F}, {'\x44', 3.0F}, {'\xBC', -1.5F}};  // E4M3FN
  /// 200 x 150, and scales 1000, 1001, … of a matrix of up to 384 rows.
  SourceView codes_, scales_;
  SourceView scaled(std::uint64_t first_row) const { return node(SourceView::Kind::kBlockScaled, {codes_, scales_}, 200, 150, first_row); }
  static float scaled_value(std::uint64_t row, std::uint64_t column, std::uint64_t first_row) {
    return kCodes[(row * 150 + column) % 3].second * static_cast<float>(1000 + (first_row + row) / 128 * 2 + column / 128);
  }
};

TEST_F(ViewReaderTest, ReadsALeafAtAnOddPlace) { expect_matrix(left_, left); }

TEST_F(ViewReaderTest, StacksRows) {
  expect_matrix(node(SourceView::Kind::kRows, {left_, left_}, 12, 10), [](auto row, auto column) { return left(row % 6, column); });
}

TEST_F(ViewReaderTest, JoinsColumns) {
  expect_matrix(node(SourceView::Kind::kColumns, {left_, right_}, 6, 17),
                [](auto row, auto column) { return column < 10 ? left(row, column) : right(row, column - 10); });
}

TEST_F(ViewReaderTest, PadsWithZeros) {
  const auto zeros = [](std::uint64_t rows, std::uint64_t columns) { return node(SourceView::Kind::kZeros, {}, rows, columns); };
  expect_matrix(node(SourceView::Kind::kColumns, {left_, zeros(6, 3)}, 6, 13),
                [](auto row, auto column) { return column < 10 ? left(row, column) : 0; });
  expect_matrix(node(SourceView::Kind::kRows, {left_, zeros(2, 10)}, 8, 10),
                [](auto row, auto column) { return row < 6 ? left(row, column) : 0; });
  EXPECT_EQ(plan::read_bytes(zeros(6, 3)), 0U);
}

TEST_F(ViewReaderTest, SlicesColumnsAndRows) {
  const SourceView columns = node(SourceView::Kind::kColumnSlice, {left_}, 6, 4, 3);
  expect_matrix(columns, [](auto row, auto column) { return left(row, column + 3); });
  expect_matrix(node(SourceView::Kind::kRowSlice, {columns}, 2, 4, 3), [](auto row, auto column) { return left(row + 3, column + 3); });
}

TEST_F(ViewReaderTest, PermutesRowsAndColumns) {
  const auto row_of = [&](std::uint64_t row) { return orders_[2 + row]; };
  const auto column_of = [&](std::uint64_t column) { return orders_[8 + column]; };
  const SourceView rows = node(SourceView::Kind::kPermutedRows, {left_}, 6, 10, 2);
  expect_matrix(rows, [&](auto row, auto column) { return left(row_of(row), column); });
  const SourceView columns = node(SourceView::Kind::kPermutedColumns, {left_}, 6, 10, 8);
  expect_matrix(columns, [&](auto row, auto column) { return left(row, column_of(column)); });
  expect_matrix(node(SourceView::Kind::kPermutedColumns, {rows}, 6, 10, 8),
                [&](auto row, auto column) { return left(row_of(row), column_of(column)); });
  SourceView bias = node(SourceView::Kind::kPermutedRows, {left_}, 6, 1, 2);  // one number per row
  bias.children[0].num_elements = 6;
  bias.children[0].columns = 1;
  expect_matrix(bias, [&](auto row, auto) { return static_cast<float>(row_of(row)); });
  EXPECT_EQ(plan::read_bytes(columns), 240U);
}

TEST_F(ViewReaderTest, ComposesInAnyDepth) {
  const SourceView slice = node(SourceView::Kind::kColumnSlice, {right_}, 6, 2, 5);
  const SourceView joined = node(SourceView::Kind::kColumns, {slice, left_}, 6, 12);
  const SourceView stacked = node(SourceView::Kind::kRows, {joined, joined}, 12, 12);
  const auto expected = [](auto row, auto column) { return column < 2 ? right(row, column + 5) : left(row, column - 2); };
  expect_matrix(node(SourceView::Kind::kColumnSlice, {stacked}, 12, 5, 1),
                [&](auto row, auto column) { return expected(row % 6, column + 1); });
}

TEST_F(ViewReaderTest, WidensNarrowerChildren) {
  expect_matrix(node(SourceView::Kind::kColumns, {narrow_, right_}, 6, 17),
                [](auto row, auto column) { return column < 10 ? left(row, column) : right(row, column - 10); });
  expect_matrix(node(SourceView::Kind::kRows, {narrow_, left_}, 12, 10), [](auto row, auto column) { return left(row % 6, column); });
}

TEST_F(ViewReaderTest, ScalesBlocksWhereverTheirMatrixBegins) {
  for (const std::uint64_t first_row : {0, 100, 184}) {
    const SourceView view = scaled(first_row);
    InputFiles files(*storage_, plan_, IoMode::kBuffered);
    ViewReader reader(files);
    for (const std::uint64_t first : {0, 1, 127, 128, 150, 28 * 150 + 5, 128 * 150 - 1, 199 * 150}) {
      for (const std::uint64_t count : {1, 23, 150, 4000, 30000}) {
        const std::uint64_t end = std::min<std::uint64_t>(first + count, view.num_elements);
        std::vector<float> result(end - first, -1.0F);
        reader.read(view, first, end - first, reinterpret_cast<std::byte*>(result.data()));
        for (std::uint64_t i = first; i < end; ++i) {
          ASSERT_EQ(result[i - first], scaled_value(i / 150, i % 150, first_row))
              << first_row << ": " << first << " to " << end << " at " << i;
        }
      }
    }
    EXPECT_EQ(reader.num_nan_codes(), 0U);
  }
}

TEST_F(ViewReaderTest, ScaledBlocksComposeWithOtherNodes) {
  const SourceView columns = node(SourceView::Kind::kColumnSlice, {scaled(100)}, 200, 20, 120);
  const SourceView stacked = node(SourceView::Kind::kRows, {node(SourceView::Kind::kRowSlice, {columns}, 3, 20, 27), columns}, 203, 20);
  InputFiles files(*storage_, plan_, IoMode::kBuffered);
  ViewReader reader(files);
  std::vector<float> result(stacked.num_elements);
  reader.read(stacked, 0, stacked.num_elements, reinterpret_cast<std::byte*>(result.data()));
  for (std::uint64_t i = 0; i < result.size(); ++i) {
    const std::uint64_t row = i / 20 < 3 ? i / 20 + 27 : i / 20 - 3;
    ASSERT_EQ(result[i], scaled_value(row, i % 20 + 120, 100)) << i;
  }
  EXPECT_EQ(plan::read_bytes(scaled(0)), 200U * 150 + 6 * 4);
  EXPECT_EQ(plan::first_leaf(stacked).begin, codes_.begin);
}

TEST_F(ViewReaderTest, CountsWhatItReads) {
  InputFiles files(*storage_, plan_, IoMode::kBuffered);
  ViewReader reader(files);
  std::vector<float> result(60);
  const SourceView slice = node(SourceView::Kind::kColumnSlice, {left_}, 6, 4, 3);
  EXPECT_EQ(reader.read(slice, 0, 24, reinterpret_cast<std::byte*>(result.data())), 240U);  // whole rows
  EXPECT_EQ(plan::read_bytes(slice), 240U);
  EXPECT_EQ(plan::read_bytes(node(SourceView::Kind::kRowSlice, {slice}, 3, 4)), 120U);
  EXPECT_EQ(view_scratch_bytes(left_), 0U);
  EXPECT_GT(view_scratch_bytes(slice), 0U);
}

TEST_F(ViewReaderTest, RefusesTreesThatDoNotFit) {
  InputFiles files(*storage_, plan_, IoMode::kBuffered);
  ViewReader reader(files);
  std::vector<float> result(200);
  const auto read = [&](const SourceView& view) { reader.read(view, 0, view.num_elements, reinterpret_cast<std::byte*>(result.data())); };
  expect_error([&] { read(node(SourceView::Kind::kColumns, {left_, right_}, 6, 16)); }, ErrorCode::kInternal, {"width"});
  expect_error([&] { read(node(SourceView::Kind::kColumnSlice, {left_}, 6, 4, 7)); }, ErrorCode::kInternal, {"columns"});
  expect_error([&] { read(node(SourceView::Kind::kPermutedRows, {left_}, 6, 10, 2)); }, ErrorCode::kInternal, {"order"});
  expect_error([&] { read(node(SourceView::Kind::kPermutedColumns, {left_}, 6, 7, 8)); }, ErrorCode::kInternal, {"width"});
  expect_error([&] { read(node(SourceView::Kind::kRowSlice, {left_}, 4, 10, 3)); }, ErrorCode::kInternal, {"beyond its end"});
  result.resize(codes_.num_elements);
  expect_error([&] { read(scaled(185)); }, ErrorCode::kInternal, {"other scales"});
  expect_error([&] { read(node(SourceView::Kind::kBlockScaled, {left_, scales_}, 6, 10)); }, ErrorCode::kInternal, {"codes of FP8"});
}

}  // namespace
}  // namespace moeweld::exec
