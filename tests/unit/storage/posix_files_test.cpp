#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <random>

#include "moeweld/storage/storage.h"
#include "unit/expect_error.h"
#include "unit/temporary_directory.h"

namespace moeweld {
namespace {

constexpr std::size_t kFileBytes = 1'000'003;

std::string random_text(std::size_t size_bytes) {
  std::mt19937 generator(7);
  std::string text(size_bytes, '\0');
  for (char& letter : text) letter = static_cast<char>(generator());
  return text;
}

// The build's directory (a disk as a rule) and memory (which refuses or emulates direct I/O).
class PosixFiles : public testing::TestWithParam<std::tuple<std::string, IoMode>> {
 protected:
  PosixFiles() : directory_(std::get<0>(GetParam())) {}
  IoMode mode() const { return std::get<1>(GetParam()); }
  std::shared_ptr<Storage> storage_ = make_posix_storage();
  TemporaryDirectory directory_;
};

TEST_P(PosixFiles, ReadsAnyRange) {
  const std::string content = random_text(kFileBytes);
  const std::string path = directory_.write("f", content);
  const auto file = storage_->open_input(path, mode());
  EXPECT_EQ(file->path(), path);
  EXPECT_EQ(file->identity().size_bytes, kFileBytes);
  AlignedBuffer buffer(kFileBytes + kDirectAlignment);
  struct Range {
    std::size_t offset, size_bytes, shift;
  };
  for (const Range& range : {Range{0, 4096, 0},
                             {8192, 524288, 0},
                             {4096, 4096, 1},
                             {1, 4096, 0},
                             {0, kFileBytes, 0},
                             {kFileBytes - 1, 1, 0},
                             {777, 0, 0},
                             {kFileBytes, 0, 0}}) {
    const auto part = buffer.span().subspan(range.shift, range.size_bytes);
    file->read(range.offset, part);
    EXPECT_EQ(std::memcmp(part.data(), content.data() + range.offset, part.size()), 0) << range.offset << " + " << range.size_bytes;
  }
}

TEST_P(PosixFiles, AnAlignedReadMayRunPastTheEndByLessThanABlock) {
  const std::string content = random_text(kFileBytes);
  const auto file = storage_->open_input(directory_.write("f", content), mode());
  constexpr std::size_t kBegin = kFileBytes / kDirectAlignment * kDirectAlignment;
  AlignedBuffer buffer(kDirectAlignment);
  file->read(kBegin, buffer.span());
  EXPECT_EQ(std::memcmp(buffer.data(), content.data() + kBegin, kFileBytes - kBegin), 0);
}

TEST_P(PosixFiles, AFileThatEndsEarlyIsRefusedWithBothLengths) {
  const std::string path = directory_.write("f", random_text(5000));
  const auto file = storage_->open_input(path, mode());
  std::vector<std::byte> buffer(2000);
  expect_error([&] { file->read(4000, buffer); }, ErrorCode::kInvalidInput, {path, "2000 bytes", "offset 4000", "only 1000", "5000"});
  AlignedBuffer aligned(3 * kDirectAlignment);
  expect_error([&] { file->read(0, aligned.span()); }, ErrorCode::kInvalidInput, {path, "12288 bytes", "offset 0", "only 5000"});
  AlignedBuffer beyond(kDirectAlignment);
  expect_error([&] { file->read(2 * kDirectAlignment, beyond.span()); }, ErrorCode::kInvalidInput, {path, "only 0"});
  expect_error([&] { file->read(UINT64_MAX - 10, buffer); }, ErrorCode::kInvalidInput, {path, "beyond the end"});
}

TEST_P(PosixFiles, WritesAlignedAndUnalignedPieces) {
  const std::string content = random_text(kFileBytes);
  const std::string path = directory_ / "out";
  storage_->create_sized(path, kFileBytes);
  AlignedBuffer buffer(kFileBytes);
  std::memcpy(buffer.data(), content.data(), kFileBytes);
  const auto file = storage_->open_output(path, mode());
  const std::size_t aligned = kFileBytes / kDirectAlignment * kDirectAlignment;
  file->write(0, buffer.span().first(aligned));
  file->write(aligned, buffer.span().subspan(aligned));
  file->sync();
  EXPECT_EQ(storage_->read_text(path, kFileBytes), content);
}

TEST_P(PosixFiles, TwoHandlesWriteDisjointRangesOfOneFile) {
  const std::string path = directory_ / "out";
  storage_->create_sized(path, 8192);
  const std::vector<std::byte> ones(4096, std::byte{1});
  const auto first = storage_->open_output(path, mode());
  const auto second = storage_->open_output(path, mode());
  second->write(4096, ones);
  first->write(0, std::vector<std::byte>(4096, std::byte{2}));
  first->sync();
  second->sync();
  EXPECT_EQ(storage_->read_text(path, 8192), std::string(4096, '\2') + std::string(4096, '\1'));
}

INSTANTIATE_TEST_SUITE_P(OnDiskAndInMemory, PosixFiles,
                         testing::Combine(testing::Values(".", "/dev/shm"),
                                          testing::Values(IoMode::kAuto, IoMode::kBuffered, IoMode::kDirect)));

bool is_in_page_cache(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY);
  void* mapping = mmap(nullptr, 4096, PROT_READ, MAP_SHARED, descriptor, 0);
  unsigned char resident = 0;
  EXPECT_EQ(mincore(mapping, 4096, &resident), 0);
  munmap(mapping, 4096);
  ::close(descriptor);
  return (resident & 1) != 0;
}

TEST(IoMode, DirectReadsLeaveNothingInThePageCacheWhereTheDiskAllowsThem) {
  const auto storage = make_posix_storage();
  const TemporaryDirectory directory(".");
  const std::string path = directory.write("f", std::string(1 << 20, 'x'));
  const int probe = ::open(path.c_str(), O_RDWR | O_DIRECT);
  if (probe >= 0) {
    fdatasync(probe);
    posix_fadvise(probe, 0, 0, POSIX_FADV_DONTNEED);
    ::close(probe);
    if (!is_in_page_cache(path)) {
      AlignedBuffer buffer(1 << 20);
      for (const IoMode mode : {IoMode::kDirect, IoMode::kAuto}) {
        storage->open_input(path, mode)->read(0, buffer.span());
        EXPECT_FALSE(is_in_page_cache(path));
        EXPECT_EQ(buffer.data()[12345], std::byte{'x'});
      }
    }
  }
  AlignedBuffer buffer(1 << 20);
  storage->open_input(path, IoMode::kBuffered)->read(0, buffer.span());
  EXPECT_TRUE(is_in_page_cache(path));
}

TEST(InputFile, SaysWhatACopyInMemoryWouldRead) {
  const auto storage = make_posix_storage();
  const TemporaryDirectory directory("/dev/shm");  // whose files are always in memory
  const std::string path = directory.write("f", std::string(10000, 'x'));
  const auto file = storage->open_input(path, IoMode::kAuto);
  EXPECT_TRUE(file->is_cached(4000, 6000));
  EXPECT_TRUE(file->is_cached(4000, 1 << 20)) << "the file's end is the range's";
  EXPECT_FALSE(file->is_cached(10000, 1)) << "nothing is there";
  EXPECT_FALSE(storage->open_input(path, IoMode::kDirect)->is_cached(4000, 6000)) << "it would be read past the cache";
  // A hole of a file that was never read is in no page.
  std::filesystem::resize_file(path, 1 << 20);
  EXPECT_FALSE(file->is_cached(0, 1 << 20));
}

TEST(InputFile, WhatIsNoPlainFileIsRefusedWithoutHanging) {
  const auto storage = make_posix_storage();
  const TemporaryDirectory directory;
  const std::string pipe = directory / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  expect_error([&] { storage->open_input(pipe, IoMode::kAuto); }, ErrorCode::kIo, {pipe, "not a plain file"});
  expect_error([&] { storage->open_input(directory.path(), IoMode::kAuto); }, ErrorCode::kIo, {directory.path(), "not a plain file"});
  expect_error([&] { storage->open_input(directory / "none", IoMode::kAuto); }, ErrorCode::kIo, {directory / "none", "No such file"});
}

TEST(OutputFile, AFullDeviceIsNoSpace) {
  const auto storage = make_posix_storage();
  const auto file = storage->open_output("/dev/full", IoMode::kBuffered);
  expect_error([&] { file->write(0, std::vector<std::byte>(10)); }, ErrorCode::kNoSpace, {"/dev/full", "10 bytes", "No space left"});
}

}  // namespace
}  // namespace moeweld
