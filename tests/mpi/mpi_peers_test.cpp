#include "moeweld/dist/mpi_peers.h"

#include <gtest/gtest.h>
#include <mpi.h>

#include <chrono>
#include <thread>

#include "unit/expect_error.h"

namespace moeweld::dist {
namespace {

std::vector<std::byte> bytes_of(int rank, std::size_t length) { return std::vector<std::byte>(length, static_cast<std::byte>(rank + 1)); }

TEST(MpiPeers, KnowRankSizeAndHost) {
  const auto peers = make_mpi_peers();
  int rank = -1;
  int size = -1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  EXPECT_EQ(peers->rank(), rank);
  EXPECT_EQ(peers->size(), size);
  EXPECT_EQ(peers->ranks_on_host(), size);  // all ranks of this test run on one host
}

TEST(MpiPeers, BroadcastFromTheLastRank) {
  const auto peers = make_mpi_peers();
  const int root = peers->size() - 1;
  std::vector<std::byte> bytes = peers->rank() == root ? bytes_of(41, 12345) : bytes_of(0, 3);
  peers->broadcast(bytes, root);
  EXPECT_EQ(bytes, bytes_of(41, 12345));
}

TEST(MpiPeers, GatherUnequalLengthsAndNothingAtAll) {
  const auto peers = make_mpi_peers();
  const auto gathered = peers->all_gather(bytes_of(peers->rank(), static_cast<std::size_t>(peers->rank()) * 1000));
  ASSERT_EQ(gathered.size(), static_cast<std::size_t>(peers->size()));
  for (int rank = 0; rank < peers->size(); ++rank)
    EXPECT_EQ(gathered[static_cast<std::size_t>(rank)], bytes_of(rank, static_cast<std::size_t>(rank) * 1000));
}

TEST(MpiPeers, SumCounts) {
  const auto peers = make_mpi_peers();
  std::vector<std::uint64_t> values = {1, static_cast<std::uint64_t>(peers->rank()), std::uint64_t{1} << 40};
  peers->sum(values);
  const auto size = static_cast<std::uint64_t>(peers->size());
  EXPECT_EQ(values, (std::vector<std::uint64_t>{size, size * (size - 1) / 2, size << 40}));
}

TEST(MpiPeers, AgreeOnTheProblemOfOneRank) {
  const auto peers = make_mpi_peers();
  const int guilty = peers->size() - 1;
  expect_error(
      [&] {
        agree_on(*peers, [&] {
          if (peers->rank() == guilty) throw Error(ErrorCode::kNoSpace, "the disk is full", "some/file");
        });
      },
      ErrorCode::kNoSpace, {"some/file", "the disk is full"});
}

TEST(MpiPeers, WorkOverACommunicatorOfTheHostProgram) {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm half = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, rank % 2, rank, &half);
  {
    const auto peers = make_mpi_peers(&half);
    std::vector<std::uint64_t> ones = {1};
    peers->sum(ones);
    EXPECT_EQ(ones[0], static_cast<std::uint64_t>(peers->size()));
  }
  MPI_Comm_free(&half);
}

TEST(MpiProgressBoard, RankZeroHearsTheLastFiguresOfAllAndNothingIsLeftOver) {
  const auto peers = make_mpi_peers();
  const auto rank = static_cast<std::uint64_t>(peers->rank());
  for (std::uint64_t round = 0; round < 3; ++round) {
    const auto board = peers->make_progress_board();
    // Far more than rank 0 looks at: what it has not asked for is left out, and no rank waits for it.
    for (std::uint64_t i = 0; i < 1000; ++i) board->publish({i, rank});
    if (rank == 0) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    board->finish({round * 10 + rank, rank}, [] {});
    const auto seen = board->collect();
    ASSERT_EQ(seen.size(), rank == 0 ? static_cast<std::size_t>(peers->size()) : 0U);
    for (std::uint64_t other = 0; other < seen.size(); ++other) EXPECT_EQ(seen[other], (ProgressBoard::Figures{round * 10 + other, other}));
  }
  peers->barrier();
}

}  // namespace
}  // namespace moeweld::dist
