#include "moeweld/base/peers.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>

namespace moeweld {
namespace {

std::vector<std::byte> bytes_of(const std::string& text) {
  const auto view = std::as_bytes(std::span(text));
  return {view.begin(), view.end()};
}

std::string text_of(const std::vector<std::byte>& bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

TEST(SinglePeer, SeesItselfOnly) {
  const auto peers = make_single_peer();
  EXPECT_EQ(peers->rank(), 0);
  EXPECT_EQ(peers->size(), 1);
  EXPECT_EQ(peers->ranks_on_host(), 1);
  EXPECT_EQ(text_of(peers->all_gather(bytes_of("x")).at(0)), "x");
  EXPECT_NO_THROW(agree(*peers, {}));
}

TEST(ThreadPeers, CollectivesGiveEveryRankTheSame) {
  for (const int num_ranks : {1, 2, 3, 7}) {
    run_thread_peers(num_ranks, [&](Peers& peers) {
      ASSERT_EQ(peers.size(), num_ranks);
      for (int round = 0; round < 50; ++round) {
        const int root = round % num_ranks;
        auto bytes = bytes_of("from " + std::to_string(peers.rank()));
        peers.broadcast(bytes, root);
        ASSERT_EQ(text_of(bytes), "from " + std::to_string(root));

        const auto gathered = peers.all_gather(bytes_of(std::string(static_cast<std::size_t>(peers.rank()), 'x')));
        ASSERT_EQ(gathered.size(), static_cast<std::size_t>(num_ranks));
        for (std::size_t rank = 0; rank < gathered.size(); ++rank) ASSERT_EQ(gathered[rank].size(), rank);

        std::vector<std::uint64_t> values = {1, static_cast<std::uint64_t>(peers.rank())};
        peers.sum(values);
        ASSERT_EQ(values[0], static_cast<std::uint64_t>(num_ranks));
        ASSERT_EQ(values[1], static_cast<std::uint64_t>(num_ranks * (num_ranks - 1) / 2));
        peers.barrier();
      }
    });
  }
}

TEST(ThreadPeers, NobodyPassesABarrierEarly) {
  std::atomic<int> arrived = 0;
  run_thread_peers(4, [&](Peers& peers) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5 * peers.rank()));
    ++arrived;
    peers.barrier();
    EXPECT_EQ(arrived, 4);
  });
}

TEST(ThreadPeers, AFailedRankFailsTheOthersAndItsOwnErrorIsRethrown) {
  std::atomic<int> failed = 0;
  const auto run = [&] {
    run_thread_peers(4, [&](Peers& peers) {
      peers.barrier();
      if (peers.rank() == 2) throw std::runtime_error("rank 2's own");
      try {
        peers.barrier();
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kPeerFailed);
        ++failed;
        throw;
      }
    });
  };
  try {
    run();
    FAIL() << "nothing was thrown";
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "rank 2's own");
  }
  EXPECT_EQ(failed, 3);
}

TEST(ThreadPeers, ARankThatEndsEarlyFailsTheOthers) {
  try {
    run_thread_peers(3, [](Peers& peers) {
      if (peers.rank() != 0) peers.barrier();
    });
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kPeerFailed);
  }
}

TEST(ThreadPeers, DifferentCollectivesAreAnError) {
  EXPECT_THROW(run_thread_peers(2,
                                [](Peers& peers) {
                                  std::vector<std::uint64_t> values(1);
                                  if (peers.rank() == 0) {
                                    peers.barrier();
                                  } else {
                                    peers.sum(values);
                                  }
                                }),
               Error);
}

TEST(Agree, EveryRankThrowsAllProblemsInRankOrderAndEqualOnesOnce) {
  std::atomic<int> caught = 0;
  run_thread_peers(4, [&](Peers& peers) {
    ProblemList problems;
    if (peers.rank() == 1) problems.add(Problem{ErrorCode::kIo, "b", "path", 3, "tensor"});
    if (peers.rank() == 3) {
      problems.add(Problem{ErrorCode::kNoSpace, "a", "", 0, ""});
      problems.add(Problem{ErrorCode::kIo, "b", "path", 3, "tensor"});
    }
    try {
      agree(peers, problems);
    } catch (const Error& error) {
      const std::vector<Problem> expected = {{ErrorCode::kIo, "b", "path", 3, "tensor"}, {ErrorCode::kNoSpace, "a", "", 0, ""}};
      EXPECT_EQ(error.problems(), expected);
      ++caught;
    }
    EXPECT_NO_THROW(agree(peers, {}));
  });
  EXPECT_EQ(caught, 4);
}

TEST(AgreeOn, ExceptionsOfAnyKindReachEveryRank) {
  std::atomic<int> caught = 0;
  run_thread_peers(3, [&](Peers& peers) {
    const auto action = [&] {
      if (peers.rank() == 0) throw std::bad_alloc();
      if (peers.rank() == 1) throw std::runtime_error("odd");
      if (peers.rank() == 2) throw Error(ErrorCode::kIo, "disk");
    };
    try {
      agree_on(peers, action);
    } catch (const Error& error) {
      EXPECT_EQ(error.problems().size(), 3U);
      EXPECT_NE(error.problems().at(0).message.find("rank 0 ran out of memory"), std::string::npos);
      EXPECT_NE(error.problems().at(1).message.find("odd"), std::string::npos);
      EXPECT_EQ(error.problems().at(2).message, "disk");
      ++caught;
    }
  });
  EXPECT_EQ(caught, 3);
}

}  // namespace
}  // namespace moeweld
