#include "moeweld/formats/safetensors.h"

#include <gtest/gtest.h>

#include "safetensors_bytes.h"
#include "unit/expect_error.h"

namespace moeweld::formats {
namespace {

const std::string kPath = "dir/model.safetensors";

SafetensorsHeader parse(const std::string& header, std::uint64_t data_size_bytes) {
  return parse_safetensors_header(header, 8 + header.size() + data_size_bytes, kPath);
}

std::string with_value(const std::string& value) { return "{\"t\":" + value + "}"; }

void expect_refused(const std::string& header, std::uint64_t data_size_bytes, std::initializer_list<std::string> parts,
                    ErrorCode code = ErrorCode::kInvalidInput) {
  SCOPED_TRACE(header.substr(0, 100));
  expect_error([&] { parse(header, data_size_bytes); }, code, {kPath});
  expect_error([&] { parse(header, data_size_bytes); }, code, parts);
}

std::uint64_t parse_length(const std::string& first, std::uint64_t file_size_bytes) {
  return parse_header_length(std::as_bytes(std::span(first)), file_size_bytes, kPath);
}

TEST(HeaderLength, IsLittleEndian) { EXPECT_EQ(parse_length(std::string("\x02\x01\0\0\0\0\0\0", 8), 1000), 258U); }

TEST(HeaderLength, RefusesFilesShorterThanItself) {
  expect_error([] { parse_length("", 0); }, ErrorCode::kInvalidInput, {kPath, "0 bytes", "8 bytes"});
  expect_error([] { parse_length("1234567", 7); }, ErrorCode::kInvalidInput, {kPath, "7 bytes", "8 bytes"});
}

TEST(HeaderLength, RefusesAHeaderBeyondTheFile) {
  EXPECT_EQ(parse_length(std::string("\x10\0\0\0\0\0\0\0", 8), 24), 16U);
  expect_error([] { parse_length(std::string("\x11\0\0\0\0\0\0\0", 8), 24); }, ErrorCode::kInvalidInput, {kPath, "17 bytes", "24 bytes"});
}

TEST(HeaderLength, RefusesHugeHeadersAndSaysWhatTheFileLooksLike) {
  expect_error([] { parse_length(std::string(8, '\xff'), UINT64_MAX); }, ErrorCode::kInvalidInput, {"18446744073709551615", "100000000"});

  expect_error([] { parse_length("version ", 130); }, ErrorCode::kInvalidInput, {"Git LFS pointer"});
  expect_error([] { parse_length("PK\x03\x04zzzz", 130); }, ErrorCode::kInvalidInput, {"zip archive"});
  expect_error([] { parse_length("\xef\xbb\xbf{    ", 130); }, ErrorCode::kInvalidInput, {"byte order mark"});
}

TEST(HeaderLength, RefusesAnEmptyHeader) {
  expect_error([] { parse_length(std::string(8, '\0'), 100); }, ErrorCode::kInvalidInput, {kPath, "0 bytes", "'{}', has 2"});
}

TEST(SafetensorsHeader, ReadsTensorsInFileOrderWithTheirPlaces) {
  const std::string header = R"({"__metadata__":{"format":"pt"},"late":{"dtype":"BF16","shape":[2,3],"data_offsets":[8,20]},)"
                             R"("scalar":{"dtype":"I64","shape":[],"data_offsets":[0,8]}}  )";
  const SafetensorsHeader parsed = parse(header, 12 + 8);
  EXPECT_EQ(parsed.data_begin, 8 + header.size());
  ASSERT_EQ(parsed.metadata.size(), 1U);
  EXPECT_EQ(parsed.metadata[0].first + "=" + parsed.metadata[0].second, "format=pt");
  ASSERT_EQ(parsed.tensors.size(), 2U);
  EXPECT_EQ(parsed.tensors[0].name, "scalar");
  EXPECT_EQ(parsed.tensors[0].dtype, DType::kI64);
  EXPECT_EQ(parsed.tensors[0].shape, Shape{});
  EXPECT_EQ(parsed.tensors[0].begin, parsed.data_begin);
  EXPECT_EQ(parsed.tensors[1].name, "late");
  EXPECT_EQ(parsed.tensors[1].shape, (Shape{2, 3}));
  EXPECT_EQ(parsed.tensors[1].begin, parsed.data_begin + 8);
  EXPECT_EQ(parsed.tensors[1].end, parsed.data_begin + 20);
}

TEST(SafetensorsHeader, TensorsWithoutElementsAreLegalAnywhere) {
  const std::string header = "{" + f32_entry("a", 2) + "," + f32_entry("between", 0, 8) + "," + f32_entry("b", 1, 8) + "," +
                             f32_entry("end", 0, 12) + R"(,"front":{"dtype":"F32","shape":[0,18446744073709551615],"data_offsets":[0,0]}})";
  EXPECT_EQ(parse(header, 12).tensors.size(), 5U);
  EXPECT_TRUE(parse("{}", 0).tensors.empty());
}

TEST(SafetensorsHeader, RefusesWhatIsNoObject) {
  expect_refused("[]", 0, {"array", "not an object"});
  expect_refused("12", 0, {"number", "not an object"});
  expect_refused("  ", 0, {"empty (2 bytes)"});
  expect_refused(" {}", 0, {"does not start with '{'"});
  expect_refused("\xef\xbb\xbf{}", 0, {"byte order mark"});
  expect_refused("{\"\xff\":1}", 0, {"not valid UTF-8"});
  expect_refused("{\"a\":" + std::string(100, '['), 0, {"deeper than 16"});
  expect_refused("{" + f32_entry("a", 1) + "," + f32_entry("a", 1) + "}", 4, {"'a'", "twice"});
  expect_refused(with_value("[1]"), 0, {"tensor 't'", "array"});
}

TEST(SafetensorsHeader, RefusesMetadataThatIsNotStrings) {
  expect_refused(R"({"__metadata__":[]})", 0, {"__metadata__", "array"});
  expect_refused(R"({"__metadata__":{"k":1}})", 0, {"__metadata__", "'k'", "number"});
}

TEST(SafetensorsHeader, RefusesMissingAndMistypedParts) {
  expect_refused(with_value(R"({"shape":[],"data_offsets":[0,4]})"), 4, {"tensor 't'", "no dtype"});
  expect_refused(with_value(R"({"dtype":1,"shape":[],"data_offsets":[0,4]})"), 4, {"tensor 't'", "dtype of type number"});
  expect_refused(with_value(R"({"dtype":"F32","data_offsets":[0,4]})"), 4, {"tensor 't'", "no shape"});
  expect_refused(with_value(R"({"dtype":"F32","shape":4,"data_offsets":[0,4]})"), 4, {"tensor 't'", "shape of type number"});
  expect_refused(with_value(R"({"dtype":"F32","shape":[]})"), 4, {"tensor 't'", "no data_offsets"});
  expect_refused(with_value(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})"), 4, {"tensor 't'", "extent -1"});
  expect_refused(with_value(R"({"dtype":"F32","shape":[1.0],"data_offsets":[0,4]})"), 4, {"tensor 't'", "extent 1.0"});
  expect_refused(with_value(R"({"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,4]})"), 4, {"tensor 't'", "extent 1.8"});
  for (const char* offsets : {"[0]", "[0,4,8]", "[-1,3]", "[0,4.0]", "\"0,4\"", "[0,18446744073709551616]"}) {
    expect_refused(with_value(R"({"dtype":"F32","shape":[],"data_offsets":)" + std::string(offsets) + "}"), 4,
                   {"tensor 't'", "two integers"});
  }
  expect_refused("{" + f32_entry("", 1) + "}", 4, {"empty name"});
}

TEST(SafetensorsHeader, RefusesUnknownAndSubByteTypesByName) {
  for (const std::string dtype : {"F4", "F8_E8M0", "F6_E2M3", "C64", "Q4_0", "f32"}) {
    expect_refused(with_value(R"({"dtype":")" + dtype + R"(","shape":[8],"data_offsets":[0,4]})"), 4, {"tensor 't'", "'" + dtype + "'"},
                   ErrorCode::kUnsupported);
  }
}

TEST(SafetensorsHeader, RefusesShapesThatOverflow) {
  expect_refused(with_value(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]})"), 4,
                 {"tensor 't'", "[4294967296, 4294967296]", "18446744073709551615"});
  expect_refused(with_value(R"({"dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4]})"), 4,
                 {"tensor 't'", "4611686018427387905", "18446744073709551615"});
}

TEST(SafetensorsHeader, RefusesOffsetsThatDoNotFitTheTypeAndShape) {
  expect_refused(with_value(R"({"dtype":"F32","shape":[5632,2048],"data_offsets":[0,46137340]})"), 46137340,
                 {"tensor 't' is F32 [5632, 2048] = 46137344 bytes, but its data_offsets span 46137340 bytes"});
}

TEST(SafetensorsHeader, RefusesReversedOffsets) {
  expect_refused(with_value(R"({"dtype":"F32","shape":[1],"data_offsets":[8,4]})"), 8,
                 {"tensor 't'", "reversed", "begin at 8", "end at 4"});
}

TEST(SafetensorsHeader, RefusesOffsetsBeyondTheFile) {
  expect_refused("{" + f32_entry("t", 4) + "}", 12, {"tensor 't'", "end at 16", "only 12 bytes"});
  expect_refused(with_value(R"({"dtype":"F32","shape":[1],"data_offsets":[18446744073709551611,18446744073709551615]})"), 4,
                 {"tensor 't'", "18446744073709551615", "only 4 bytes"});
}

TEST(SafetensorsHeader, RefusesOverlaps) {
  expect_refused("{" + f32_entry("a", 2) + "," + f32_entry("b", 2, 4) + "}", 12,
                 {"tensor 'b' overlaps tensor 'a'", "offset 4", "ends at 8"});
  expect_refused("{" + f32_entry("a", 2) + "," + f32_entry("b", 2) + "}", 8, {"overlaps", "offset 0", "ends at 8"});
  expect_refused("{" + f32_entry("a", 3) + "," + f32_entry("inside", 1, 4) + "}", 12, {"tensor 'inside' overlaps tensor 'a'"});
}

TEST(SafetensorsHeader, RefusesHoles) {
  expect_refused("{" + f32_entry("a", 1) + "," + f32_entry("b", 1, 8) + "}", 12, {"tensor 'b'", "offset 8", "ends at 4", "hole"});
  expect_refused("{" + f32_entry("a", 1, 4) + "}", 8, {"tensor 'a'", "offset 4", "ends at 0", "hole"});
}

TEST(SafetensorsHeader, RefusesTrailingBytes) {
  expect_refused("{" + f32_entry("a", 1) + "}", 5, {"end at offset 4", "5 bytes"});
  expect_refused("{}", 1, {"end at offset 0", "1 bytes"});
}

TEST(SafetensorsHeader, RefusesAHeaderLongerThanTheFile) {
  expect_error([] { parse_safetensors_header("{}", 9, kPath); }, ErrorCode::kInvalidInput, {kPath, "byte 10", "9 bytes"});
}

TEST(SafetensorsHeader, ReportsAllProblemsButAtMostTwenty) {
  std::string header = "{";
  for (int i = 0; i < 30; ++i) header += (i == 0 ? "" : ",") + ("\"t" + std::to_string(i)) + "\":[]";
  header += "}";
  try {
    parse(header, 0);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.problems().size(), 21U);
    EXPECT_NE(error.problems().back().message.find("10 more"), std::string::npos);
  }
}

TEST(SerializeHeader, IsReadBackAndAligned) {
  const std::vector<TensorLayout> layouts = {{"b\"\n\xc3\xa9", DType::kBF16, {3, 5}}, {"a", DType::kF32, {}}, {"none", DType::kU8, {0}}};
  const std::vector<std::pair<std::string, std::string>> extra = {{"maker", "moeweld"}};
  const std::string bytes = serialize_safetensors_header(layouts, extra);
  EXPECT_EQ(bytes.size() % kDataAlignment, 0U);
  EXPECT_EQ(parse_length(bytes.substr(0, 8), bytes.size()), bytes.size() - 8);
  const std::string expected =
      R"({"__metadata__":{"format":"pt","maker":"moeweld"},"b\"\né":{"dtype":"BF16","shape":[3,5],"data_offsets":[0,30]},)"
      R"("a":{"dtype":"F32","shape":[],"data_offsets":[30,34]},"none":{"dtype":"U8","shape":[0],"data_offsets":[34,34]}})";
  EXPECT_EQ(bytes.substr(8, expected.size()), expected);
  EXPECT_EQ(bytes.find_first_not_of(' ', 8 + expected.size()), std::string::npos);
  const SafetensorsHeader parsed = parse(bytes.substr(8), 34);
  EXPECT_EQ(parsed.tensors.size(), 3U);
  EXPECT_EQ(parsed.tensors[0].name, layouts[0].name);
}

// Time that grows with the square of their number would run into the test's limit.
TEST(SafetensorsHeader, HoldsNinetyThousandTensors) {
  std::vector<TensorLayout> layouts;
  for (int i = 0; i < 90'000; ++i)
    layouts.push_back({"model.layers." + std::to_string(i / 1500) + ".mlp.experts." + std::to_string(i) + ".w", DType::kBF16, {2, 1}});
  const std::string header = serialize_safetensors_header(layouts).substr(8);
  EXPECT_EQ(parse(header, 4 * 90'000).tensors.size(), 90'000U);
}

}  // namespace
}  // namespace moeweld::formats
