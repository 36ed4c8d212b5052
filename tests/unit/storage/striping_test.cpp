#include "moeweld/storage/striping.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>

#include "support/forwarding_storage.h"
#include "unit/temporary_directory.h"

namespace moeweld {
namespace {

constexpr std::uint64_t kGigabyte = std::uint64_t{1} << 30;

class LustreStorage : public testing_support::ForwardingStorage {
 public:
  SpaceInfo space(const std::string&) override { return {kGigabyte, "lustre"}; }
};

/// A stand-in for lfs that is first in PATH and writes down how it was called.
class StripingTest : public ::testing::Test {
 protected:
  void SetUp() override { setenv("PATH", (directory_.path() + ":" + path_before_).c_str(), 1); }
  void TearDown() override { setenv("PATH", path_before_.c_str(), 1); }
  void make_lfs(int exit_code) {
    const std::string program =
        directory_.write("lfs", "#!/bin/sh\necho \"$@\" >> " + (directory_ / "calls") + "\nexit " + std::to_string(exit_code) + "\n");
    ASSERT_EQ(chmod(program.c_str(), 0755), 0);
  }
  std::string calls() { return storage_.exists(directory_ / "calls") ? storage_.read_text(directory_ / "calls", 1000) : ""; }

  TemporaryDirectory directory_;
  LustreStorage storage_;
  const std::string path_before_ = std::getenv("PATH");
};

TEST_F(StripingTest, IsSetThroughLfsWhereStatfsSaysLustre) {
  make_lfs(0);
  EXPECT_EQ(set_striping(storage_, "/some/out.partial", {8, 16 << 20}), "");
  EXPECT_EQ(calls(), "setstripe -c 8 -S 16777216 /some/out.partial\n");
}

TEST_F(StripingTest, OtherFileSystemsAreLeftAlone) {
  make_lfs(0);
  EXPECT_EQ(set_striping(*make_posix_storage(), directory_.path(), {8, 16 << 20}), "");
  EXPECT_EQ(calls(), "");
}

TEST_F(StripingTest, WhatFailsIsSaidAndStopsNothing) {
  make_lfs(5);
  EXPECT_NE(set_striping(storage_, "/x", {8, 16 << 20}).find("ended with code 5"), std::string::npos);
  setenv("PATH", "/nowhere", 1);
  EXPECT_NE(set_striping(storage_, "/x", {8, 16 << 20}).find("cannot be run"), std::string::npos);
}

TEST(ChooseStriping, ATargetPerWriterAndPer8GiBUpTo64) {
  EXPECT_EQ(choose_striping(kGigabyte - 1, 32).count, 1);
  EXPECT_EQ(choose_striping(5 * kGigabyte, 1).count, 1);
  EXPECT_EQ(choose_striping(5 * kGigabyte, 4).count, 4);
  EXPECT_EQ(choose_striping(90 * kGigabyte, 4).count, 12);
  EXPECT_EQ(choose_striping(1300 * kGigabyte, 512).count, 64);
}

}  // namespace
}  // namespace moeweld
