#include "moeweld/base/work_division.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <vector>

#include "moeweld/base/peers.h"

namespace moeweld {
namespace {

using Portion = std::optional<std::uint64_t>;

Portion taken_by(std::size_t rank, WorkDivision& division) {
  const std::optional<WorkDivision::Taken> taken = division.take(rank);
  return taken ? Portion(taken->portion) : Portion();
}

TEST(WorkDivision, ARankTakesItsOwnFromTheFrontThenTheBackHalfOfTheLongest) {
  const std::vector<std::uint64_t> first = {0, 3, 11, 11};
  WorkDivision division(first, true);  // left: 1-2, 4-10, none
  EXPECT_EQ(taken_by(0, division), Portion(1));
  EXPECT_EQ(taken_by(0, division), Portion(2));
  EXPECT_EQ(taken_by(0, division), Portion(7)) << "of 4-10 the back half";
  EXPECT_EQ(taken_by(1, division), Portion(4)) << "the owner goes on in front";
  EXPECT_EQ(taken_by(2, division), Portion(9)) << "what was taken may be taken again: 8-10 is longest";
  EXPECT_EQ(taken_by(2, division), Portion(10));
  EXPECT_EQ(taken_by(2, division), Portion()) << "5-6 are left to an owner who has taken as many";
  EXPECT_EQ(taken_by(0, division), Portion(8));
  EXPECT_EQ(taken_by(0, division), Portion(6)) << "5 taken, 2 by the owner";
  EXPECT_EQ(taken_by(1, division), Portion(5));
  for (std::size_t rank = 0; rank < 3; ++rank) EXPECT_EQ(taken_by(rank, division), Portion()) << rank;
}

TEST(WorkDivision, TheLastTwoPortionsAreLeftToAnOwnerWhoIsNotMuchSlower) {
  const std::vector<std::uint64_t> first = {0, 3, 6};
  WorkDivision division(first, true);  // left: 1-2 and 4-5
  EXPECT_EQ(taken_by(0, division), Portion(1));
  EXPECT_EQ(taken_by(0, division), Portion(2));
  EXPECT_EQ(taken_by(1, division), Portion(4));
  EXPECT_EQ(taken_by(0, division), Portion()) << "3 taken, 2 by the owner of 5";
  EXPECT_EQ(taken_by(1, division), Portion(5));

  WorkDivision slower(first, true);
  EXPECT_EQ(taken_by(0, slower), Portion(1));
  EXPECT_EQ(taken_by(0, slower), Portion(2));
  EXPECT_EQ(taken_by(0, slower), Portion(5)) << "the back half of 4-5";
  EXPECT_EQ(taken_by(0, slower), Portion(4)) << "4 taken, 1 by its owner";
  EXPECT_EQ(taken_by(1, slower), Portion());
}

TEST(WorkDivision, WhereBordersCostNothingTheLastPortionMovesToo) {
  const std::vector<std::uint64_t> first = {0, 3, 6};
  WorkDivision division(first, false);  // left: 1-2 and 4-5
  EXPECT_EQ(taken_by(0, division), Portion(1));
  EXPECT_EQ(taken_by(0, division), Portion(2));
  EXPECT_EQ(taken_by(1, division), Portion(4));
  EXPECT_EQ(taken_by(0, division), Portion(5));
  EXPECT_EQ(taken_by(1, division), Portion());
}

TEST(WorkDivision, SaysWhenTheNextPortionWouldBeAnothers) {
  const std::vector<std::uint64_t> first = {0, 3, 7};
  WorkDivision division(first, false);  // left: 1-2 and 4-6
  using Taken = WorkDivision::Taken;
  EXPECT_EQ(division.take(0), (Taken{1, false}));
  EXPECT_EQ(division.take(0), (Taken{2, true}));
  EXPECT_EQ(division.take(0), (Taken{5, false})) << "5-6 are its own now";
  EXPECT_EQ(division.take(1), (Taken{4, true})) << "the rest of its stretch is gone";
  EXPECT_EQ(division.take(1), (Taken{6, true}));
}

TEST(WorkDivision, GivesEveryPortionToOneRankInAnyOrder) {
  for (std::uint32_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 generator(seed);
    const std::size_t ranks = 1 + generator() % 9;
    std::vector<std::uint64_t> first = {0};
    std::set<std::uint64_t> left;
    for (std::size_t rank = 0; rank < ranks; ++rank) {
      first.push_back(first.back() + generator() % 12);
      for (std::uint64_t portion = first[rank] + 1; portion < first[rank + 1]; ++portion) left.insert(portion);
    }
    WorkDivision division(first, true);
    std::map<std::size_t, std::uint64_t> last;
    while (!left.empty()) {
      const std::size_t rank = generator() % ranks;
      if (const Portion portion = taken_by(rank, division)) {
        ASSERT_EQ(left.erase(*portion), 1U) << *portion;
        continue;
      }
      // Then others have two each at most, and theirs are not refused to them.
      ASSERT_LE(left.size(), 2 * (ranks - 1));
    }
    for (std::size_t rank = 0; rank < ranks; ++rank) EXPECT_EQ(taken_by(rank, division), Portion());
  }
}

TEST(WorkDivision, AClosedOneHasNothing) {
  const std::vector<std::uint64_t> first = {0, 5, 10};
  WorkDivision division(first, true);
  EXPECT_TRUE(division.take(1));
  division.close();
  EXPECT_EQ(taken_by(0, division), Portion());
  EXPECT_EQ(taken_by(1, division), Portion());
}

TEST(WorkBoard, ThreadsShareOneDivisionPerBoard) {
  const std::vector<std::uint64_t> first = {0, 1000, 1000, 2000};
  std::vector<std::vector<std::uint64_t>> taken(3);
  run_thread_peers(3, [&](Peers& peers) {
    const auto board = peers.make_work_board(first, true);
    const auto other = peers.make_work_board(first, true);
    EXPECT_FALSE(board->needs_serving());
    while (true) {
      board->ask();
      const auto answer = board->poll();
      ASSERT_TRUE(answer);
      if (!answer->portion) break;
      taken[static_cast<std::size_t>(peers.rank())].push_back(answer->portion->portion);
    }
    board->leave(false);
    EXPECT_TRUE(board->has_ended());
    other->ask();
    EXPECT_TRUE(other->poll()->portion) << "boards are apart";
  });
  std::set<std::uint64_t> all;
  for (const auto& portions : taken) all.insert(portions.begin(), portions.end());
  EXPECT_EQ(taken[0].size() + taken[1].size() + taken[2].size(), all.size());
  EXPECT_EQ(all.size(), 1998U);
  EXPECT_FALSE(all.contains(0));
  EXPECT_FALSE(all.contains(1000));
}

TEST(WorkBoard, AfterARankHasFailedNobodyGetsMore) {
  const std::vector<std::uint64_t> first = {0, 100, 200};
  run_thread_peers(2, [&](Peers& peers) {
    const auto board = peers.make_work_board(first, true);
    if (peers.rank() == 1) board->leave(true);
    peers.barrier();
    if (peers.rank() == 0) {
      board->ask();
      EXPECT_FALSE(board->poll()->portion);
    }
  });
}

}  // namespace
}  // namespace moeweld
