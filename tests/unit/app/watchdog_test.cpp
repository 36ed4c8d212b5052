#include "app/watchdog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "moeweld/formats/json.h"

namespace moeweld::app {
namespace {

using testing::HasSubstr;
using testing::Not;
using trace::Kind;

StallReport own_report() {
  StallReport report;
  report.rank = 2;
  report.place = "process 4711 on n17";
  report.seconds = 600;
  report.spans = {{Kind::kStage, "merge", "", "", 900}, {Kind::kRead, "read", "/models/a/model-3.safetensors", "reader 0", 612}};
  return report;
}

SignsOfLife::Seen seen(const std::string& doing, bool waits, int silent_beats) {
  return {Heartbeat{5, 5, waits, "process 1 on n1", doing}, silent_beats};
}

TEST(StallText, NamesRankHostCallObjectAndWhatToDo) {
  const std::string text = stall_text(own_report(), {.writes_output = true});
  EXPECT_THAT(text, HasSubstr("rank 2 has made no progress for 600 s"));
  EXPECT_THAT(text, HasSubstr("rank 2 (process 4711 on n17) is in 'read /models/a/model-3.safetensors' (reader 0), for 612 s"));
  EXPECT_THAT(text, HasSubstr("--resume"));
  EXPECT_THAT(text, HasSubstr("--stall-timeout"));
  EXPECT_THAT(stall_text(own_report(), {}), Not(HasSubstr("--resume")));
}

TEST(StallText, OfWaitingRanksNamesThoseThatAreSilent) {
  StallReport report = own_report();
  report.spans = {{Kind::kPeers, "all-gather", "", "", 800}};
  report.seconds_per_beat = 60;
  report.peers = {seen("'barrier', for 700 s", true, 0),
                  seen("'read /x', for 1 s", false, 14),
                  seen("'all-gather', for 800 s", true, 0),
                  {std::nullopt, 20}};
  const std::string text = stall_text(report, {});
  EXPECT_THAT(text, HasSubstr("no rank has made progress for 600 s"));
  EXPECT_THAT(text, HasSubstr("rank 1 (process 1 on n1) has not been heard of for 840 s"));
  EXPECT_THAT(text, HasSubstr("'read /x', for 1 s"));
  EXPECT_THAT(text, HasSubstr("rank 3 has never been heard of"));
  EXPECT_THAT(text, HasSubstr("rank 2 (process 4711 on n17), which says this, waits in 'all-gather'"));
  EXPECT_THAT(text, Not(HasSubstr("rank 0")));
}

TEST(StallText, OfWaitingRanksNamesThoseThatWorkElseAll) {
  StallReport report = own_report();
  report.peers = {seen("'barrier', for 700 s", true, 0), seen("'sync /x', for 650 s", false, 0)};
  EXPECT_THAT(stall_text(report, {}), HasSubstr("rank 1 (process 1 on n1) is in 'sync /x', for 650 s"));
  EXPECT_THAT(stall_text(report, {}), Not(HasSubstr("rank 0")));
  report.peers[1].last->waits_for_peers = true;
  EXPECT_THAT(stall_text(report, {}), HasSubstr("rank 0 (process 1 on n1) is in 'barrier', for 700 s"));
}

TEST(StallText, OfManyRanksNamesAFew) {
  StallReport report = own_report();
  report.peers.assign(100, seen("'read /x', for 1 s", false, 9));
  EXPECT_THAT(stall_text(report, {}), HasSubstr("and 95 more"));
}

TEST(StallText, IsJsonForMachines) {
  const formats::Json json = formats::Json::parse(stall_text(own_report(), {.as_json = true}));
  EXPECT_EQ(json["event"], "error");
  EXPECT_EQ(json["exit_code"], 12);
  EXPECT_EQ(json["problems"][0]["code"], "stalled");
  EXPECT_THAT(json["problems"][0]["message"].get<std::string>(), HasSubstr("/models/a/model-3.safetensors"));
}

TEST(WatchdogDeathTest, ACallThatDoesNotReturnEndsTheProcessWithItsNameAndTheDocumentedCode) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto hang = [] {
    const Watchdog watchdog(3, 4, std::chrono::milliseconds(300), {});
    const std::string path = "/models/sick";
    const trace::Span span(Kind::kRead, "read", 0, path);
    std::this_thread::sleep_for(std::chrono::seconds(20));
  };
  EXPECT_EXIT(hang(), testing::ExitedWithCode(12), "rank 3 .* is in 'read /models/sick'");
}

TEST(WatchdogTest, LeavesAlonePeersThatWaitAndWorkThatGoesOn) {
  const Watchdog watchdog(0, 2, std::chrono::milliseconds(200), {});
  {
    const trace::Span span(Kind::kPeers, "barrier");
    std::this_thread::sleep_for(std::chrono::milliseconds(600));
  }
  for (int step = 0; step < 12; ++step) {
    const trace::Span span(Kind::kRead, "read");
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

TEST(WatchdogTest, IsOffWithoutATimeout) {
  const Watchdog watchdog(0, 1, std::chrono::seconds(0), {});
  const std::uint64_t before = trace::num_steps();
  { const trace::Span span(Kind::kRead, "read"); }
  EXPECT_EQ(trace::num_steps(), before);
}

}  // namespace
}  // namespace moeweld::app
