#include "exec/units.h"

#include <gtest/gtest.h>

#include "support/synthetic_plan.h"
#include "unit/temporary_directory.h"

namespace moeweld::exec {
namespace {

using testing_support::make_synthetic_plan;

TEST(Units, CoverEveryElementOnceAndFitTheSlot) {
  const TemporaryDirectory directory;
  const plan::MergePlan plan =
      make_synthetic_plan(directory.path(), {{"a", {1000, 1531}}, {"b", {3}}, {"c", {900, 700}}}, "slerp", 2, true, {{"t", 0.5}});
  constexpr std::size_t kSlot = 3 << 20;
  for (const int ranks : {1, 2, 5}) {
    const plan::Schedule schedule = plan::make_schedule(plan, ranks);
    std::vector<std::uint64_t> next(plan.operations.size());
    for (const auto& runs : schedule.runs) {
      for (const Unit& unit : cut_units(plan, runs, kSlot)) {
        std::uint64_t bytes = 0;
        for (const Piece& piece : unit) {
          EXPECT_EQ(piece.first_element, next[piece.operation]);
          next[piece.operation] += piece.num_elements;
          bytes += piece.num_elements * 4;
        }
        EXPECT_LE(bytes, kSlot);
      }
    }
    for (std::size_t i = 0; i < next.size(); ++i) EXPECT_EQ(next[i], plan.operations[i].task.elements());
  }
}

TEST(Units, CutMeasuredTensorsAtBlockBorders) {
  const TemporaryDirectory directory;
  const plan::MergePlan plan = make_synthetic_plan(directory.path(), {{"a", {2000, 1531}}}, "slerp", 2, true, {{"t", 0.5}});
  const auto units = cut_units(plan, plan::make_schedule(plan, 1).runs[0], 3 << 20);
  ASSERT_GT(units.size(), 2U);
  for (const Unit& unit : units) EXPECT_EQ(unit.front().first_element % merge::kBlockElements, 0U);
  EXPECT_TRUE(units.back().back().is_last);
  EXPECT_FALSE(units.front().front().is_last);
}

TEST(Units, JoinSmallTensors) {
  const TemporaryDirectory directory;
  const plan::MergePlan plan =
      make_synthetic_plan(directory.path(), {{"a", {10}}, {"b", {3}}, {"c", {900}}, {"d", {5}}}, "linear", 2, false, {{"weight", 0.5}}, 4);
  EXPECT_EQ(cut_units(plan, plan::make_schedule(plan, 1).runs[0], 3 << 20).size(), 1U);
}

}  // namespace
}  // namespace moeweld::exec
