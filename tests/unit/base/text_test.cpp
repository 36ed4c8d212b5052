#include "moeweld/base/text.h"

#include <gtest/gtest.h>

namespace moeweld {
namespace {

TEST(FormatBytes, HasThreeDigitsAndDecimalUnits) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(740), "740 B");
  EXPECT_EQ(format_bytes(999), "999 B");
  EXPECT_EQ(format_bytes(1000), "1 kB");
  EXPECT_EQ(format_bytes(13'476'839'424), "13.5 GB");
  EXPECT_EQ(format_bytes(512'000'000), "512 MB");
  EXPECT_EQ(format_bytes(999'999'999), "1 GB");
  EXPECT_EQ(format_bytes(1'310'000), "1.31 MB");
  EXPECT_EQ(format_bytes(9'996'000), "10 MB");
  EXPECT_EQ(format_bytes(UINT64_MAX), "18.4 EB");
}

TEST(FormatMemory, HasBinaryUnits) {
  EXPECT_EQ(format_memory(1'406'602'772), "1.31 GiB");
  EXPECT_EQ(format_memory(2048), "2 KiB");
  EXPECT_EQ(format_memory(1023), "1023 B");
}

TEST(FormatDuration, GoesFromSecondsToHours) {
  EXPECT_EQ(format_duration(7.9), "7.9 s");
  EXPECT_EQ(format_duration(0.04), "0.0 s");
  EXPECT_EQ(format_duration(119.9), "119.9 s");
  EXPECT_EQ(format_duration(119.99), "2:00");
  EXPECT_EQ(format_duration(125), "2:05");
  EXPECT_EQ(format_duration(3661), "1:01:01");
}

TEST(ParseSize, ReadsDecimalAndBinaryUnits) {
  EXPECT_EQ(parse_size("5GB"), 5'000'000'000U);
  EXPECT_EQ(parse_size("5B"), 5'000'000'000U);
  EXPECT_EQ(parse_size("5b"), 5'000'000'000U);
  EXPECT_EQ(parse_size("500M"), 500'000'000U);
  EXPECT_EQ(parse_size("2GiB"), 2'147'483'648U);
  EXPECT_EQ(parse_size("2gib"), 2'147'483'648U);
  EXPECT_EQ(parse_size("1.5g"), 1'500'000'000U);
  EXPECT_EQ(parse_size("4096"), 4096U);
  EXPECT_EQ(parse_size("0.5KiB"), 512U);
  EXPECT_EQ(parse_size("9223372036854775807"), 9'223'372'036'854'775'807U);
}

TEST(ParseSize, RefusesWhatIsNotAPositiveSize) {
  for (const char* text : {"", "GB", "0", "0.0GB", "-1", "+1", "1.", ".5", "1..5", "5 GB", "5XB", "5GBs", "0x10", "1e9", "nan",
                           "9223372036854775808", "10000000T", "99999999999999999999"}) {
    EXPECT_FALSE(parse_size(text)) << text;
  }
}

TEST(Nearest, SuggestsWhatIsNearEnoughToBeMeant) {
  const std::vector<std::string> words = {"density", "weight", "normalize"};
  EXPECT_EQ(nearest("densty", words), "density");
  EXPECT_EQ(nearest("WEIGHT", words), "weight");
  EXPECT_EQ(nearest("normalise", words), "normalize");
  EXPECT_EQ(nearest("dnesity", words), "density");
  EXPECT_EQ(nearest("dytpe", std::vector<std::string>{"models", "dtype"}), "dtype");
  EXPECT_EQ(nearest("colour", words), std::nullopt);
  EXPECT_EQ(nearest("", words), std::nullopt);
  EXPECT_EQ(nearest("x", std::vector<std::string>{"t"}), std::nullopt);
}

TEST(Printable, EscapesControlAndInvalidBytesAndCutsLongNames) {
  EXPECT_EQ(printable("model.layers.0 é…"), "model.layers.0 é…");
  EXPECT_EQ(printable("a\tb\x7f\xff"), "a\\x09b\\x7F\\xFF");
  EXPECT_EQ(printable(std::string_view("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(printable("abcdefgh", 8), "abcdefgh");
  EXPECT_EQ(printable("abcdefghi", 8), "abcde…");
  EXPECT_LE(printable(std::string(1'000'000, 'x')).size(), 300U);
  EXPECT_LE(printable(std::string(1'000'000, '\n')).size(), 300U);
}

TEST(IsUtf8, RefusesOverlongFormsSurrogatesAndCutSequences) {
  EXPECT_TRUE(is_utf8(""));
  EXPECT_TRUE(is_utf8("plain, é, 漢, 😀, and a long tail of letters"));
  for (const char* text : {"\x80", "\xc0\xaf", "\xc1\xbf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf0\x80\x80\x80", "\xf4\x90\x80\x80",
                           "\xf5\x80\x80\x80", "\xc3", "\xe6\xbc", "eightlet\xff", "\xc3(", "seven77\xc3"}) {
    EXPECT_FALSE(is_utf8(text)) << printable(text);
  }
}

}  // namespace
}  // namespace moeweld
