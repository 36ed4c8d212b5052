#include "moeweld/base/shape.h"

#include <gtest/gtest.h>

#include "moeweld/base/error.h"

namespace moeweld {
namespace {

TEST(Shape, CountsElementsAndRows) {
  EXPECT_EQ(num_elements({}), 1U);
  EXPECT_EQ(num_elements({3, 4, 5}), 60U);
  EXPECT_EQ(num_elements({3, 0}), 0U);
  EXPECT_EQ(row_length({}), 1U);
  EXPECT_EQ(row_length({7}), 7U);
  EXPECT_EQ(num_rows({}), 1U);
  EXPECT_EQ(num_rows({7}), 1U);
  EXPECT_EQ(num_rows({3, 4, 5}), 12U);
  EXPECT_EQ(to_string(Shape{4096, 11008}), "[4096, 11008]");
  EXPECT_EQ(to_string(Shape{}), "[]");
}

TEST(Shape, ElementCountsBeyond64BitsAreRefused) {
  EXPECT_EQ(num_elements({std::uint64_t{1} << 32, (std::uint64_t{1} << 32) - 1}),
            (std::uint64_t{1} << 32) * ((std::uint64_t{1} << 32) - 1));
  EXPECT_THROW(num_elements({std::uint64_t{1} << 32, std::uint64_t{1} << 32}), Error);
  EXPECT_EQ(num_elements({UINT64_MAX, UINT64_MAX, 0}), 0U);
}

}  // namespace
}  // namespace moeweld
