#include <gtest/gtest.h>

#include <cstring>
#include <utility>

#include "moeweld/storage/storage.h"

namespace moeweld {
namespace {

std::uintptr_t address(const AlignedBuffer& buffer) { return reinterpret_cast<std::uintptr_t>(buffer.data()); }

TEST(AlignedBuffer, FitsDirectInputAndHugePages) {
  for (const std::size_t size_bytes : {std::size_t{1}, std::size_t{4096}, std::size_t{1'000'000}}) {
    const AlignedBuffer buffer(size_bytes);
    EXPECT_EQ(buffer.size(), size_bytes);
    EXPECT_EQ(address(buffer) % kDirectAlignment, 0U);
  }
  AlignedBuffer large(5 * 1024 * 1024);
  EXPECT_EQ(address(large) % (2 * 1024 * 1024), 0U);
  std::memset(large.data(), 1, large.size());
}

TEST(AlignedBuffer, MovesWithoutCopying) {
  AlignedBuffer first(4096);
  const std::byte* data = first.data();
  AlignedBuffer second(std::move(first));
  EXPECT_EQ(second.data(), data);
  AlignedBuffer third;
  EXPECT_EQ(third.data(), nullptr);
  third = std::move(second);
  EXPECT_EQ(third.data(), data);
  EXPECT_EQ(third.size(), 4096U);
}

}  // namespace
}  // namespace moeweld
