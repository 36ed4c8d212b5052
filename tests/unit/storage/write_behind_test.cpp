#include "moeweld/storage/write_behind.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <string>

#include "unit/temporary_directory.h"

namespace moeweld {
namespace {

TEST(WriteBehind, LeavesTheBytesAsTheyAre) {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/file";
  const std::string content(100'000, 'x');
  std::ofstream file(path, std::ios::binary);
  WriteBehind behind(path);
  file << content << std::flush;
  behind.start(4096, 50'000);
  WriteBehind moved = std::move(behind);
  moved.start(0, 0);
  moved.start(1 << 20, 1);  // beyond the end
  std::ifstream again(path, std::ios::binary);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(again), {}), content);
}

TEST(WriteBehind, DoesNothingWithoutAFile) {
  const TemporaryDirectory directory;
  WriteBehind().start(0, 0);
  WriteBehind(directory.path() + "/missing").start(0, 0);
  EXPECT_FALSE(std::ifstream(directory.path() + "/missing").is_open());
}

}  // namespace
}  // namespace moeweld
