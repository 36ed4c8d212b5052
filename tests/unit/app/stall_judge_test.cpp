#include "app/stall_judge.h"

#include <gtest/gtest.h>

namespace moeweld::app {
namespace {

using Seconds = std::chrono::duration<double>;

constexpr Seconds kTimeout{600};
constexpr Seconds kLook{10};  // a sixtieth
constexpr int kPatience = 18;

/// Looks `times` times with what does not change; the number of the first look that ended the job, 0 if none did.
int look_often(StallJudge& judge, StallLook seen, int times, StallVerdict expected) {
  seen.since_last = kLook;
  for (int look = 1; look <= times; ++look) {
    const StallVerdict verdict = judge.look(seen);
    if (verdict == StallVerdict::kNone) continue;
    EXPECT_EQ(verdict, expected);
    return look;
  }
  return 0;
}

TEST(StallJudge, WorkThatDoesNotEndIsSeenAfterTheTimeout) {
  StallJudge judge(kTimeout, kPatience);
  EXPECT_EQ(judge.interval(), kLook);
  // The first look begins the count.
  EXPECT_EQ(look_often(judge, {.steps = 5}, 200, StallVerdict::kOwn), 61);
  EXPECT_EQ(judge.own_stall(), kTimeout);
}

TEST(StallJudge, SlowWorkIsNotEndedHoweverLongItTakes) {
  StallJudge judge(kTimeout, kPatience);
  for (std::uint64_t steps = 0; steps < 500; ++steps) {
    ASSERT_EQ(look_often(judge, {.steps = steps}, 59, StallVerdict::kOwn), 0) << steps;
  }
}

TEST(StallJudge, WhoWaitsIsPatientWhileAnyOtherWorks) {
  StallJudge judge(kTimeout, kPatience);
  for (std::uint64_t peers = 0; peers < 100; ++peers) {
    ASSERT_EQ(look_often(judge, {.steps = 5, .waits_for_peers = true, .peer_steps = peers}, 70, StallVerdict::kPeers), 0) << peers;
  }
}

TEST(StallJudge, WhoWaitsEndsTheJobWhenNobodyWorksAfterThePatience) {
  StallJudge judge(kTimeout, kPatience);
  EXPECT_EQ(look_often(judge, {.steps = 5, .waits_for_peers = true, .peer_steps = 9}, 200, StallVerdict::kPeers), 61 + kPatience);
  EXPECT_EQ(judge.peers_stall(), kTimeout + kPatience * kLook);
}

TEST(StallJudge, WhoWaitsWithoutSeeingOthersWaits) {
  StallJudge judge(kTimeout, kPatience);
  EXPECT_EQ(look_often(judge, {.steps = 5, .waits_for_peers = true}, 10'000, StallVerdict::kNone), 0);
  // What is seen of them for the first time begins the count, however long it was waited before.
  EXPECT_EQ(look_often(judge, {.steps = 5, .waits_for_peers = true, .peer_steps = 0}, 200, StallVerdict::kPeers), 61 + kPatience);
}

TEST(StallJudge, WorkAfterALongWaitHasTheWholeTimeout) {
  StallJudge judge(kTimeout, kPatience);
  for (std::uint64_t peers = 0; peers < 50; ++peers)
    look_often(judge, {.steps = 5, .waits_for_peers = true, .peer_steps = peers}, 50, StallVerdict::kNone);
  EXPECT_EQ(look_often(judge, {.steps = 5, .peer_steps = 49}, 200, StallVerdict::kOwn), 60);
}

TEST(StallJudge, TimeInWhichTheProcessWasStoppedDoesNotCount) {
  StallJudge judge(kTimeout, kPatience);
  EXPECT_EQ(look_often(judge, {.steps = 5}, 60, StallVerdict::kOwn), 0);
  // One look before the end the job is suspended for a day.
  EXPECT_EQ(judge.look({.since_last = Seconds(86400), .steps = 5}), StallVerdict::kNone);
  EXPECT_EQ(look_often(judge, {.steps = 5}, 200, StallVerdict::kOwn), 60);
}

TEST(StallJudge, AWaitingProcessThatWasStoppedBeginsAnewToo) {
  StallJudge judge(kTimeout, kPatience);
  const StallLook seen{.since_last = kLook, .steps = 5, .waits_for_peers = true, .peer_steps = 1};
  EXPECT_EQ(look_often(judge, seen, 60 + kPatience, StallVerdict::kPeers), 0);
  StallLook late = seen;
  late.since_last = Seconds(86400);
  EXPECT_EQ(judge.look(late), StallVerdict::kNone);
  EXPECT_EQ(look_often(judge, seen, 200, StallVerdict::kPeers), 60 + kPatience);
}

TEST(StallJudge, LooksThatComeLateCountOnce) {
  StallJudge judge(kTimeout, kPatience);
  int looks = 0;
  while (judge.look({.since_last = 9 * kLook, .steps = 5}) == StallVerdict::kNone) ++looks;
  EXPECT_EQ(looks, 60);
}

TEST(Observers, AreAtMostSixteenAndSpeakOneAfterTheOther) {
  for (const int size : {1, 2, 3, 16, 17, 31, 32, 512, 513, 4096}) {
    int num_observers = 0;
    int last = -1;
    for (int rank = 0; rank < size; ++rank) {
      if (!is_observer(rank, size)) continue;
      ++num_observers;
      EXPECT_GT(observer_patience(rank, size, kTimeout), last) << rank << " of " << size;
      last = observer_patience(rank, size, kTimeout);
    }
    EXPECT_GE(num_observers, std::min(size, 8)) << size;
    EXPECT_LE(num_observers, 16) << size;
  }
}

TEST(Observers, GiveALauncherThreeSecondsHoweverShortTheTimeoutIs) {
  // Looks of 10 s: three heartbeats' time, then one look for each.
  EXPECT_EQ(observer_patience(0, 2, kTimeout), 18);
  EXPECT_EQ(observer_patience(1, 2, kTimeout), 19);
  // Looks of 0.05 s.
  EXPECT_EQ(observer_patience(0, 2, Seconds(3)), 60);
  EXPECT_EQ(observer_patience(1, 2, Seconds(3)), 120);
}

}  // namespace
}  // namespace moeweld::app
