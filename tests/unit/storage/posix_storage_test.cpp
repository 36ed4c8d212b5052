#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "moeweld/storage/storage.h"
#include "unit/expect_error.h"
#include "unit/temporary_directory.h"

namespace moeweld {
namespace {

namespace fs = std::filesystem;

class PosixStorage : public testing::Test {
 protected:
  std::shared_ptr<Storage> storage_ = make_posix_storage();
  TemporaryDirectory directory_;
};

TEST_F(PosixStorage, CreateSizedGrowsAndShrinksWithoutLosingContent) {
  const std::string path = directory_.write("f", "content");
  storage_->create_sized(path, 1'000'000);
  EXPECT_EQ(storage_->identity(path)->size_bytes, 1'000'000U);
  EXPECT_EQ(storage_->read_text(path, 1'000'000).substr(0, 8), std::string("content\0", 8));
  storage_->create_sized(path, 4);
  EXPECT_EQ(storage_->read_text(path, 4), "cont");
  storage_->create_sized(directory_ / "empty", 0);
  EXPECT_EQ(storage_->identity(directory_ / "empty")->size_bytes, 0U);
}

TEST_F(PosixStorage, CreateSizedRefusesWhatNoDiskHolds) {
  EXPECT_THROW(storage_->create_sized(directory_ / "f", std::uint64_t{1} << 62), Error);
  EXPECT_THROW(storage_->create_sized(directory_ / "f", UINT64_MAX), Error);
}

TEST_F(PosixStorage, ReadTextRefusesAFileThatIsTooLarge) {
  const std::string path = directory_.write("f", "12345");
  EXPECT_EQ(storage_->read_text(path, 5), "12345");
  expect_error([&] { storage_->read_text(path, 4); }, ErrorCode::kInvalidInput, {path, "5 bytes", "at most 4"});
}

TEST_F(PosixStorage, WriteTextReplacesTheWholeFileAndLeavesNoOther) {
  const std::string path = directory_.write("f", "a longer text");
  storage_->write_text(path, "new");
  EXPECT_EQ(storage_->read_text(path, 100), "new");
  EXPECT_EQ(storage_->list(directory_.path()).size(), 1U);
  expect_error([&] { storage_->write_text(directory_ / "none/f", "x"); }, ErrorCode::kIo, {directory_ / "none/f", "No such file"});
}

TEST_F(PosixStorage, IdentityFollowsLinksAndChangesWithTheFile) {
  const std::string path = directory_.write("f", "1234");
  fs::create_symlink("f", directory_ / "link");
  fs::create_symlink("none", directory_ / "dangling");
  const auto before = storage_->identity(directory_ / "link");
  ASSERT_TRUE(before);
  EXPECT_EQ(before->size_bytes, 4U);
  EXPECT_EQ(before, storage_->identity(path));
  const timespec times[2] = {{0, UTIME_OMIT}, {1, 5}};
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  EXPECT_EQ(storage_->identity(path)->modified_ns, 1'000'000'005);
  EXPECT_FALSE(storage_->identity(directory_ / "dangling"));
  EXPECT_FALSE(storage_->identity(directory_ / "none"));
  EXPECT_FALSE(storage_->exists(path + "/below"));
}

TEST_F(PosixStorage, ListIsSortedAndTellsDirectories) {
  directory_.write("b/inner", "");
  directory_.write("a", "");
  fs::create_symlink("b", directory_ / "c");
  fs::create_symlink("none", directory_ / "d");
  const auto entries = storage_->list(directory_.path());
  ASSERT_EQ(entries.size(), 4U);
  EXPECT_EQ(entries[0].name + entries[1].name + entries[2].name + entries[3].name, "abcd");
  EXPECT_FALSE(entries[0].is_directory);
  EXPECT_TRUE(entries[1].is_directory);
  EXPECT_TRUE(entries[2].is_directory);
  EXPECT_FALSE(entries[3].is_directory);
  EXPECT_THROW(storage_->list(directory_ / "none"), Error);
}

TEST_F(PosixStorage, MakeDirectoriesMakesAllAndIsRepeatable) {
  storage_->make_directories(directory_ / "x/y/z/");
  storage_->make_directories(directory_ / "x/y/z");
  EXPECT_TRUE(storage_->is_directory(directory_ / "x/y/z"));
  directory_.write("f", "");
  EXPECT_THROW(storage_->make_directories(directory_ / "f"), Error);
  EXPECT_THROW(storage_->make_directories(directory_ / "f/g"), Error);
}

TEST_F(PosixStorage, RenameMovesDirectoriesButNotOverFullOnes) {
  directory_.write("out.partial/f", "x");
  storage_->rename(directory_ / "out.partial", directory_ / "out");
  EXPECT_TRUE(storage_->exists(directory_ / "out/f"));
  EXPECT_FALSE(storage_->exists(directory_ / "out.partial"));
  directory_.write("other/f", "y");
  expect_error([&] { storage_->rename(directory_ / "other", directory_ / "out"); }, ErrorCode::kIo,
               {directory_ / "other", directory_ / "out"});
  EXPECT_EQ(storage_->read_text(directory_ / "out/f", 10), "x");
}

TEST_F(PosixStorage, RemoveAllDoesNotFollowLinks) {
  directory_.write("keep/f", "x");
  directory_.write("gone/deep/g", "x");
  fs::create_directory_symlink("../keep", directory_ / "gone/link");
  storage_->remove_all(directory_ / "gone");
  storage_->remove_all(directory_ / "gone");
  EXPECT_FALSE(storage_->exists(directory_ / "gone"));
  EXPECT_TRUE(storage_->exists(directory_ / "keep/f"));
}

TEST_F(PosixStorage, SpaceNamesTheFileSystem) {
  const SpaceInfo space = storage_->space("/dev/shm");
  EXPECT_EQ(space.file_system, "tmpfs");
  EXPECT_GT(storage_->space(directory_.path()).available_bytes, 0U);
  EXPECT_THROW(storage_->space(directory_ / "none"), Error);
}

TEST_F(PosixStorage, WritabilityIsTriedAndLeavesNothing) {
  EXPECT_TRUE(storage_->is_writable_directory(directory_.path()));
  EXPECT_TRUE(storage_->list(directory_.path()).empty());
  EXPECT_FALSE(storage_->is_writable_directory(directory_ / "none"));
  EXPECT_FALSE(storage_->is_writable_directory("/proc"));
}

}  // namespace
}  // namespace moeweld
