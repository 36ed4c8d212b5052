#include "moeweld/merge/statistics.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "moeweld/merge/simd_target.h"

namespace moeweld::merge {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

StatisticsTask task_of(std::size_t num_values, DType dtype, int reference, bool has_base) {
  StatisticsTask task;
  task.values.inputs.assign(num_values, {dtype, {}});
  task.reference = reference;
  task.has_base = has_base;
  return task;
}

/// `values`: the inputs and, last, the output.
StatisticsSums sum(const StatisticsTask& task, const std::vector<std::vector<double>>& values) {
  std::vector<const std::byte*> pointers;
  for (const std::vector<double>& list : values) pointers.push_back(reinterpret_cast<const std::byte*>(list.data()));
  return sum_cell(task, {.first_element = 0, .num_elements = values[0].size(), .inputs = pointers});
}

TEST(Statistics, AreTheDefinitionsOnAFewElements) {
  // Base, two models, output.
  const StatisticsSums sums = sum(task_of(4, DType::kF64, 0, true), {{1, -2, 0, 4}, {2, -2, -1, 4}, {0, -3, -2, 4}, {1, -2.5, 0, 4}});
  EXPECT_EQ(sums.elements, 4U);
  EXPECT_EQ(sums.left_out, 0U);
  EXPECT_EQ(sums.sign_conflicts, 1U);  // +1 and -1; then 0 and -1, -1 and -2, 0 and 0
  EXPECT_EQ(sums.kept, 1U);
  EXPECT_EQ(sums.values[1].squares, 4 + 4 + 1 + 16);
  EXPECT_EQ(sums.values[1].dot, 2 + 4 + 0 + 16);
  EXPECT_EQ(sums.values[1].squared_difference, 1 + 0 + 1 + 0);
  EXPECT_EQ(sums.values[2].max_absolute, 4);
  EXPECT_EQ(sums.values[0].squared_difference, 0);
  EXPECT_EQ(sums.values[0].dot, sums.values[0].squares);
  EXPECT_EQ(sums.values[3].squared_difference, 0.25);
}

TEST(Statistics, WithoutABaseGoByTheValuesThemselves) {
  const StatisticsSums sums = sum(task_of(3, DType::kF64, 0, false), {{1, -2, 0, 4}, {-2, -2, -1, 4}, {0, 0, 1, 4}});
  EXPECT_EQ(sums.sign_conflicts, 1U);
  EXPECT_EQ(sums.kept, 2U);
  EXPECT_EQ(sums.values[1].squared_difference, 9 + 0 + 1 + 0);
}

TEST(Statistics, WithoutInputsHaveNoComparisons) {
  const StatisticsSums sums = sum(task_of(1, DType::kF64, -1, false), {{3, -4}});
  EXPECT_EQ(sums.values[0].squares, 25);
  EXPECT_EQ(sums.values[0].dot, 0);
  EXPECT_EQ(sums.values[0].squared_difference, 0);
  EXPECT_EQ(sums.kept, 2U);
}

TEST(Statistics, WhereAnyValueIsNotFiniteTheElementIsLeftOutOfAll) {
  const StatisticsSums sums = sum(task_of(3, DType::kF64, 0, true), {{1, 2, 3, 4, 5}, {kNan, 7, -kInfinity, 8, 9}, {1, 2, 3, kNan, 6}});
  EXPECT_EQ(sums.elements, 5U);
  EXPECT_EQ(sums.left_out, 3U);
  EXPECT_EQ(sums.values[0].non_finite, 0U);
  EXPECT_EQ(sums.values[1].non_finite, 2U);
  EXPECT_EQ(sums.values[2].non_finite, 1U);
  EXPECT_EQ(sums.values[0].squares, 4 + 25);
  EXPECT_EQ(sums.values[1].max_absolute, 9);
  EXPECT_EQ(sums.kept, 1U);
}

TEST(Statistics, OfZerosAreZeros) {
  const StatisticsSums sums = sum(task_of(3, DType::kF64, 0, true), {{0, -0.0}, {0, 0}, {-0.0, 0}});
  EXPECT_EQ(sums.kept, 0U);
  EXPECT_EQ(sums.sign_conflicts, 0U);
  EXPECT_EQ(sums.values[2].squares, 0);
}

/// Values of `num` elements in each type, as the type and as float64, by integer arithmetic alone.
struct Arrays {
  explicit Arrays(std::size_t num) : bf16(num), f32(num), f64(num) {
    std::mt19937 random(static_cast<unsigned>(num));
    std::normal_distribution<float> normal(0, 0.02F);
    for (std::size_t i = 0; i < num; ++i) {
      bf16[i] = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(normal(random)) >> 16);
      f32[i] = normal(random);
      f64[i] = normal(random) * 1.0000001;
    }
  }
  double value(std::size_t list, std::size_t i) const {
    if (list == 0) return static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(bf16[i]) << 16));
    return list == 1 ? static_cast<double>(f32[i]) : f64[i];
  }
  std::vector<const std::byte*> pointers() const {
    return {reinterpret_cast<const std::byte*>(bf16.data()), reinterpret_cast<const std::byte*>(f32.data()),
            reinterpret_cast<const std::byte*>(f64.data())};
  }
  std::vector<std::uint16_t> bf16;
  std::vector<float> f32;
  std::vector<double> f64;
};

StatisticsTask mixed_task() {
  StatisticsTask task = task_of(3, DType::kF64, 0, true);
  task.values.inputs[0].dtype = DType::kBF16;
  task.values.inputs[1].dtype = DType::kF32;
  return task;
}

StatisticsSums sum_all(const Arrays& arrays) {
  StatisticsSums sums;
  for (const StatisticsSums& cell :
       sum_cells(mixed_task(), {.first_element = 0, .num_elements = arrays.bf16.size(), .inputs = arrays.pointers()})) {
    add_cell(cell, sums);
  }
  return sums;
}

TEST(Statistics, OfUnlikeTypesAndRaggedLengthsAreTheDefinitions) {
  for (const std::size_t num :
       {std::size_t{1}, std::size_t{63}, std::size_t{513}, std::size_t{kCellElements}, std::size_t{3 * kCellElements + 77}}) {
    SCOPED_TRACE(num);
    const Arrays arrays(num);
    const StatisticsSums sums = sum_all(arrays);
    long double dot = 0;
    long double difference = 0;
    double largest = 0;
    std::uint64_t kept = 0;
    for (std::size_t i = 0; i < num; ++i) {
      const double base = arrays.value(0, i);
      const double output = arrays.value(2, i);
      dot += static_cast<long double>(base) * output;
      difference += static_cast<long double>(output - base) * (output - base);
      largest = std::max(largest, std::abs(output));
      kept += output != base ? 1 : 0;
    }
    EXPECT_EQ(sums.elements, num);
    EXPECT_EQ(sums.kept, kept);
    EXPECT_EQ(sums.sign_conflicts, 0U);  // one model beside the base
    EXPECT_EQ(sums.values[2].max_absolute, largest);
    EXPECT_NEAR(sums.values[2].dot, static_cast<double>(dot), 1e-12 * static_cast<double>(num));
    EXPECT_NEAR(sums.values[2].squared_difference, static_cast<double>(difference), 1e-12 * static_cast<double>(difference));
  }
}

TEST(Statistics, HaveTheSameBitsOnAnyVectorWidthAndNumberOfThreads) {
  const Arrays arrays(5 * kCellElements + 1001);
  const std::string before = active_simd_target();
  omp_set_num_threads(1);
  const StatisticsSums expected = sum_all(arrays);
  for (const std::string& target : available_simd_targets()) {
    for (const int threads : {1, 3}) {
      SCOPED_TRACE(target);
      choose_simd_target(target);
      omp_set_num_threads(threads);
      const StatisticsSums sums = sum_all(arrays);
      for (std::size_t i = 0; i < 3; ++i) {
        EXPECT_TRUE(std::memcmp(&sums.values[i], &expected.values[i], sizeof(ValueSums)) == 0) << i;
      }
      EXPECT_EQ(sums.kept, expected.kept);
    }
  }
  choose_simd_target(before);
}

}  // namespace
}  // namespace moeweld::merge
