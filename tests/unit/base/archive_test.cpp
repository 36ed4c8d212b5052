#include "moeweld/base/archive.h"

#include <gtest/gtest.h>

#include <map>

namespace moeweld {
namespace {

enum class Colour : std::uint8_t { kRed, kBlue };

struct Item {
  std::int32_t count = 0;
  Colour colour{};
  std::string name;
  std::vector<double> values;
  std::optional<std::string> note;
  std::vector<std::pair<std::string, std::uint64_t>> pairs;
  bool operator==(const Item&) const = default;
};

template <typename Archive>
void serialize(Archive& archive, Item& item) {
  archive(item.count, item.colour, item.name, item.values, item.note, item.pairs);
}

TEST(Archive, GivesBackWhatWasWritten) {
  const std::vector<Item> items = {{-7, Colour::kBlue, "a\0b", {1.5, -0.0}, "note", {{"x", 1}, {"", UINT64_MAX}}}, {}};
  EXPECT_EQ(from_archive<std::vector<Item>>(to_archive(items)), items);
}

TEST(Archive, IsLittleEndianWithoutPadding) {
  const Item item{.count = 0x01020304, .colour = Colour::kBlue, .name = "ab", .values = {}, .note = {}, .pairs = {}};
  const std::vector<std::byte> bytes = to_archive(item);
  ASSERT_EQ(bytes.size(), 4U + 1 + 8 + 2 + 8 + 1 + 8);
  EXPECT_EQ(bytes[0], std::byte{4});
  EXPECT_EQ(bytes[3], std::byte{1});
  EXPECT_EQ(bytes[4], std::byte{1});
  EXPECT_EQ(bytes[5], std::byte{2});
}

TEST(Archive, EveryShorterArchiveIsRefused) {
  const Item item{.count = 1, .colour = Colour::kRed, .name = "name", .values = {1, 2}, .note = "n", .pairs = {{"p", 2}}};
  const std::vector<std::byte> bytes = to_archive(item);
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THROW(from_archive<Item>(std::span(bytes).first(size)), Error) << size << " of " << bytes.size() << " bytes";
  }
}

TEST(Archive, BytesLeftOverAreRefused) {
  std::vector<std::byte> bytes = to_archive(Item{});
  bytes.push_back(std::byte{0});
  EXPECT_THROW(from_archive<Item>(bytes), Error);
}

TEST(Archive, ALengthBeyondTheEndAllocatesNothing) {
  const std::uint64_t length = UINT64_MAX / 2;
  EXPECT_THROW(from_archive<std::vector<std::uint64_t>>(to_archive(length)), Error);
  EXPECT_THROW(from_archive<std::string>(to_archive(length)), Error);
}

}  // namespace
}  // namespace moeweld
