#include "moeweld/base/trace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <thread>

namespace moeweld::trace {
namespace {

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

class Trace : public testing::Test {
 protected:
  ~Trace() override { stop(); }
};

TEST_F(Trace, RecordsNothingUnlessStarted) {
  start();
  stop();
  { const Span span(Kind::kRead, "read", 10); }
  EXPECT_EQ(count(events_json(0), "\"ph\":\"X\""), 0U);
}

TEST_F(Trace, SpanHasNameKindRankBytesAndItsTime) {
  start();
  {
    const Span span(Kind::kWait, "wait for input", 77);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  stop();
  const std::string text = events_json(3);
  EXPECT_EQ(count(text, R"("ph":"X","name":"wait for input","cat":"wait","pid":3,)"), 1U) << text;
  EXPECT_EQ(count(text, R"("args":{"bytes":77})"), 1U);
  const double microseconds = std::stod(text.substr(text.find("\"dur\":") + 6));
  EXPECT_GE(microseconds, 20e3);
  EXPECT_LT(microseconds, 20e6);
  EXPECT_GE(std::stod(text.substr(text.find("\"ts\":") + 5)), 0);
}

TEST_F(Trace, ThreadsOfOneNameThatFollowEachOtherShareARow) {
  start();
  for (int round = 0; round < 3; ++round) {
    std::thread([] {
      name_thread("reader 0");
      const Span span(Kind::kRead, "read");
    }).join();
  }
  stop();
  const std::string text = events_json(0);
  EXPECT_EQ(count(text, "thread_name"), 1U) << text;
  EXPECT_EQ(count(text, "\"ph\":\"X\""), 3U);
}

TEST_F(Trace, ThreadsAtTheSameTimeHaveRowsOfTheirOwn) {
  start();
  {
    const Span mine(Kind::kCombine, "apply");
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([] {
        for (int turn = 0; turn < 500; ++turn) const Span span(Kind::kCombine, "apply");
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  stop();
  const std::string text = events_json(0);
  EXPECT_EQ(count(text, "\"ph\":\"X\""), 2001U);
  EXPECT_EQ(count(text, "thread_name"), 5U);
}

TEST_F(Trace, SpansBeyondTheLimitAreCounted) {
  start();
  for (std::uint64_t i = 0; i < kMostSpans + 5; ++i) const Span span(Kind::kRead, "read");
  stop();
  EXPECT_EQ(num_dropped(), 5U);
  EXPECT_EQ(count(events_json(0), "\"ph\":\"X\""), kMostSpans);
  start();
  EXPECT_EQ(num_dropped(), 0U);
}

}  // namespace
}  // namespace moeweld::trace
