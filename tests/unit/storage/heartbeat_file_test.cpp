#include "moeweld/storage/heartbeat_file.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "unit/expect_error.h"
#include "unit/temporary_directory.h"

namespace moeweld {
namespace {

Heartbeat some_heartbeat() { return {7, 123456789012345, true, "process 4711 on n17", "'read /models/a b' (reader 0), for 3 s"}; }

TEST(HeartbeatText, IsOnePageAndComesBack) {
  const std::string text = heartbeat_text(some_heartbeat());
  EXPECT_EQ(text.size(), kHeartbeatBytes);
  EXPECT_EQ(parse_heartbeat(text), some_heartbeat());
}

TEST(HeartbeatText, LongAndStrangeTextsDoNotBreakIt) {
  Heartbeat heartbeat = some_heartbeat();
  heartbeat.place = std::string(10'000, 'p');
  heartbeat.doing = "a\nend\nb";
  const std::string text = heartbeat_text(heartbeat);
  EXPECT_EQ(text.size(), kHeartbeatBytes);
  const std::optional<Heartbeat> back = parse_heartbeat(text);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->doing, "a end b");
  EXPECT_EQ(back->number, 7U);
}

TEST(HeartbeatText, APartOfOneIsNone) {
  const std::string text = heartbeat_text(some_heartbeat());
  const std::size_t length = text.find('\0');
  for (std::size_t end = 0; end < length; ++end) EXPECT_FALSE(parse_heartbeat(text.substr(0, end))) << end;
  EXPECT_FALSE(parse_heartbeat(std::string(kHeartbeatBytes, '\0')));
  EXPECT_FALSE(parse_heartbeat("moeweld.heartbeat/2" + text.substr(19)));
}

TEST(HeartbeatFile, EachRankHasItsPlace) {
  const TemporaryDirectory directory;
  const HeartbeatFile file(directory / "out.heartbeats");
  file.create(3);
  EXPECT_EQ(std::filesystem::file_size(file.path()), 3 * kHeartbeatBytes);
  ASSERT_TRUE(file.write(2, some_heartbeat()));
  const auto read = file.read();
  ASSERT_EQ(read.size(), 3U);
  EXPECT_FALSE(read[0]);
  EXPECT_FALSE(read[1]);
  EXPECT_EQ(read[2], some_heartbeat());
}

TEST(HeartbeatFile, AnEarlierJobsIsReplaced) {
  const TemporaryDirectory directory;
  const HeartbeatFile file(directory / "out.heartbeats");
  file.create(4);
  ASSERT_TRUE(file.write(0, some_heartbeat()));
  file.create(2);
  EXPECT_EQ(file.read(), (std::vector<std::optional<Heartbeat>>(2)));
}

TEST(HeartbeatFile, ARemovedOneIsNotMadeAgain) {
  const TemporaryDirectory directory;
  const HeartbeatFile file(directory / "out.heartbeats");
  file.create(1);
  file.remove();
  EXPECT_FALSE(file.write(0, some_heartbeat()));
  EXPECT_TRUE(file.read().empty());
  EXPECT_FALSE(std::filesystem::exists(file.path()));
}

TEST(HeartbeatFile, APlaceThatCannotBeIsAnError) {
  const TemporaryDirectory directory;
  expect_error([&] { HeartbeatFile(directory / "none/out.heartbeats").create(1); }, ErrorCode::kIo, {"none/out.heartbeats"});
}

}  // namespace
}  // namespace moeweld
