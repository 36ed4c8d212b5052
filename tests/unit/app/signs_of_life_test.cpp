#include "app/signs_of_life.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "unit/temporary_directory.h"

namespace moeweld::app {
namespace {

using trace::Kind;
using trace::OpenSpan;

TEST(WaitsForPeers, OnlyIfNoThreadWorks) {
  const OpenSpan barrier{Kind::kPeers, "barrier", "", "", 9};
  const OpenSpan shared{Kind::kSharedWrite, "MPI-IO round", "/out", "", 9};
  const OpenSpan read{Kind::kRead, "read", "/models/a", "reader 0", 2};
  const OpenSpan idle{Kind::kWait, "wait for a buffer", "", "reader 1", 5};
  const OpenSpan stage{Kind::kStage, "publish", "", "", 5};
  EXPECT_TRUE(waits_for_peers({barrier}));
  EXPECT_TRUE(waits_for_peers({shared, idle}));
  EXPECT_FALSE(waits_for_peers({barrier, read}));
  EXPECT_FALSE(waits_for_peers({idle}));
  EXPECT_FALSE(waits_for_peers({stage}));
  EXPECT_FALSE(waits_for_peers({}));
}

TEST(DoingText, NamesTheCallThatOthersWaitFor) {
  const OpenSpan stage{Kind::kStage, "merge", "", "", 100};
  const OpenSpan wait{Kind::kWait, "wait for input", "", "", 90};
  const OpenSpan read{Kind::kRead, "read", "/models/a", "reader 0", 80.4};
  const OpenSpan barrier{Kind::kPeers, "barrier", "", "", 70};
  EXPECT_EQ(doing_text({stage, wait, read, barrier}), "'read /models/a' (reader 0), for 80 s");
  EXPECT_EQ(doing_text({stage, wait, barrier}), "'barrier', for 70 s");
  EXPECT_EQ(doing_text({stage, wait}), "'merge', for 100 s");
  EXPECT_EQ(doing_text({}), "nothing that has a name");
}

TEST(HeartbeatOf, SaysWhatThereIsToSay) {
  const Heartbeat heartbeat = heartbeat_of({{Kind::kPeers, "barrier", "", "", 3}}, 17, "process 1 on n1");
  EXPECT_EQ(heartbeat, (Heartbeat{0, 17, true, "process 1 on n1", "'barrier', for 3 s"}));
}

/// What visit() sees, waited for until `is_enough` or ten seconds are over.
std::optional<std::pair<std::uint64_t, std::vector<SignsOfLife::Seen>>> visited(
    const std::function<bool(const std::vector<SignsOfLife::Seen>&)>& is_enough) {
  for (int attempt = 0; attempt < 1000; ++attempt) {
    std::optional<std::pair<std::uint64_t, std::vector<SignsOfLife::Seen>>> result;
    SignsOfLife::visit([&](std::uint64_t steps, const std::vector<SignsOfLife::Seen>& seen) { result = {steps, seen}; });
    if (!result || is_enough(result->second)) return result;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return std::nullopt;
}

TEST(SignsOfLife, OthersProgressAndSilenceAreSeenByTheirHeartbeats) {
  const TemporaryDirectory directory;
  const std::string path = directory / "out.heartbeats";
  EXPECT_FALSE(visited([](const auto&) { return true; }));
  {
    // A process has one of these; the other rank's heartbeats are written by hand.
    run_thread_peers(2, [&](Peers& peers) {
      if (peers.rank() == 1) {
        agree_on(peers, [] {});
        return;
      }
      const SignsOfLife signs(peers, path, std::chrono::milliseconds(20));
      const HeartbeatFile file(path);
      const auto silent = visited([](const auto& seen) { return seen[0].last && seen[1].silent_beats >= 3; });
      ASSERT_TRUE(silent);
      EXPECT_FALSE(silent->second[1].last);
      EXPECT_EQ(silent->first, 0U) << "this rank's own heartbeats are no other's progress";

      ASSERT_TRUE(file.write(1, {1, 5, false, "process 9 on n9", "'read /x', for 1 s"}));
      const auto begun = visited([](const auto& seen) { return seen[1].last.has_value(); });
      ASSERT_TRUE(begun);
      EXPECT_EQ(begun->first, 1U);
      EXPECT_EQ(begun->second[1].last->place, "process 9 on n9");

      // Alive, and without progress.
      ASSERT_TRUE(file.write(1, {2, 5, false, "process 9 on n9", "'read /x', for 2 s"}));
      const auto alive = visited([](const auto& seen) { return seen[1].last->number == 2; });
      ASSERT_TRUE(alive);
      EXPECT_EQ(alive->first, 1U);

      ASSERT_TRUE(file.write(1, {3, 6, false, "process 9 on n9", "'read /y', for 0 s"}));
      const auto working = visited([](const auto& seen) { return seen[1].last->number == 3; });
      ASSERT_TRUE(working);
      EXPECT_EQ(working->first, 2U);
    });
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_FALSE(visited([](const auto&) { return true; }));
}

}  // namespace
}  // namespace moeweld::app
