#include "moeweld/base/open_spans.h"

#include <gtest/gtest.h>

#include <future>
#include <thread>

namespace moeweld::trace {
namespace {

class OpenSpans : public testing::Test {
 protected:
  OpenSpans() { watch(); }
  ~OpenSpans() override { stop_watching(); }
};

TEST_F(OpenSpans, AreNotSeenUnlessWatched) {
  stop_watching();
  const std::uint64_t before = num_steps();
  {
    const Span span(Kind::kRead, "read");
    EXPECT_TRUE(open_spans().empty());
  }
  EXPECT_EQ(num_steps(), before);
}

TEST_F(OpenSpans, AreTheInnermostOfEachThreadWithItsNameLongestFirst) {
  const std::string path = "/models/a";
  const Span outer(Kind::kStage, "merge");
  const Span inner(Kind::kRead, "read", 5, path);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  std::promise<void> is_open;
  std::promise<void> may_close;
  std::thread other([&] {
    name_thread("reader 1");
    const Span span(Kind::kPeers, "barrier");
    is_open.set_value();
    may_close.get_future().wait();
  });
  is_open.get_future().wait();
  const std::vector<OpenSpan> spans = open_spans();
  may_close.set_value();
  other.join();
  ASSERT_EQ(spans.size(), 2U);
  EXPECT_EQ(spans[0].name, "read");
  EXPECT_EQ(spans[0].object, path);
  EXPECT_EQ(spans[0].kind, Kind::kRead);
  EXPECT_GE(spans[0].seconds, 0.02);
  EXPECT_LT(spans[0].seconds, 60);
  EXPECT_EQ(spans[1].name, "barrier");
  EXPECT_EQ(spans[1].thread, "reader 1");
  EXPECT_EQ(spans[1].kind, Kind::kPeers);
}

TEST_F(OpenSpans, OuterOnesAreSeenAgainAndNoneIsLeft) {
  {
    const Span outer(Kind::kStage, "merge");
    { const Span inner(Kind::kRead, "read"); }
    ASSERT_EQ(open_spans().size(), 1U);
    EXPECT_EQ(open_spans()[0].name, "merge");
  }
  EXPECT_TRUE(open_spans().empty());
}

TEST_F(OpenSpans, TheirEndIsProgressUnlessTheyWaitForThisProcess) {
  const auto steps_of = [](Kind kind) {
    const std::uint64_t before = num_steps();
    { const Span span(kind, "it"); }
    return num_steps() - before;
  };
  EXPECT_EQ(steps_of(Kind::kWait), 0U);
  for (const Kind kind : {Kind::kRead, Kind::kWrite, Kind::kCombine, Kind::kJournal, Kind::kPeers, Kind::kSharedWrite})
    EXPECT_EQ(steps_of(kind), 1U);
  const std::uint64_t before = num_steps();
  made_progress();
  EXPECT_EQ(num_steps(), before + 1);
}

TEST_F(OpenSpans, DeeperOnesThanThereIsRoomForDoNoHarm) {
  const auto nest = [](auto&& self, int depth) -> void {
    const Span span(Kind::kCombine, "deep");
    if (depth > 0) self(self, depth - 1);
  };
  nest(nest, 30);
  EXPECT_TRUE(open_spans().empty());
}

TEST_F(OpenSpans, ThreadsComeAndGoWhileTheyAreLookedAt) {
  std::atomic<bool> stop{false};
  std::thread looker([&] {
    while (!stop) {
      for (const OpenSpan& span : open_spans()) ASSERT_EQ(span.object, "/x");
    }
  });
  for (int round = 0; round < 50; ++round) {
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([] {
        for (int turn = 0; turn < 50; ++turn) {
          const std::string path = "/x";
          const Span span(Kind::kRead, "read", 0, path);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  stop = true;
  looker.join();
  EXPECT_TRUE(open_spans().empty());
}

}  // namespace
}  // namespace moeweld::trace
