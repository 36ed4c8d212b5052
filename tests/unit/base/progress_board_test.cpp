#include "moeweld/base/progress_board.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "moeweld/base/peers.h"

namespace moeweld {
namespace {

using Figures = ProgressBoard::Figures;

TEST(ProgressBoard, OneRankSeesItself) {
  const auto peers = make_single_peer();
  const auto board = peers->make_progress_board();
  board->publish({3, 4});
  ASSERT_EQ(board->collect().size(), 1U);
  EXPECT_EQ(board->collect()[0], (Figures{3, 4}));
  board->finish({5, 6}, [] { FAIL() << "there is nobody to wait for"; });
  EXPECT_EQ(board->collect()[0], (Figures{5, 6}));
}

TEST(ProgressBoard, RankZeroSeesTheOthersWhileTheyWorkAndWaitsForTheLast) {
  std::atomic<bool> was_seen = false;
  run_thread_peers(3, [&](Peers& peers) {
    const auto first = peers.make_progress_board();
    const auto board = peers.make_progress_board();
    const auto rank = static_cast<std::uint64_t>(peers.rank());
    if (rank != 0) {
      board->publish({rank, 10 * rank});
      EXPECT_TRUE(board->collect().empty());
      while (rank == 2 && !was_seen) std::this_thread::yield();  // works until rank 0 has seen it work
      board->finish({rank + 100, 0}, [] {});
      return peers.barrier();
    }
    board->finish({7, 7}, [&] { was_seen = was_seen || board->collect()[2] == Figures{2, 20}; });
    EXPECT_EQ(std::vector<Figures>(board->collect().begin(), board->collect().end()), (std::vector<Figures>{{7, 7}, {101, 0}, {102, 0}}));
    EXPECT_EQ(first->collect()[1], Figures{}) << "boards are apart";
    peers.barrier();
  });
}

TEST(ProgressBoard, ARankThatLeavesFailsTheWaitOfRankZero) {
  EXPECT_THROW(run_thread_peers(2,
                                [](Peers& peers) {
                                  const auto board = peers.make_progress_board();
                                  if (peers.rank() == 1) throw Error(ErrorCode::kIo, "the disk is gone");
                                  board->finish({}, [] {});
                                }),
               Error);
}

}  // namespace
}  // namespace moeweld
