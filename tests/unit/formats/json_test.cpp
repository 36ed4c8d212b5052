#include "moeweld/formats/json.h"

#include <gtest/gtest.h>

#include "unit/expect_error.h"

namespace moeweld::formats {
namespace {

void expect_refused(std::string_view text, std::initializer_list<std::string> parts, JsonLimits limits = {}) {
  SCOPED_TRACE(std::string(text.substr(0, 60)));
  std::vector<std::string> all(parts);
  expect_error([&] { parse_json(text, "dir/config.json", limits); }, ErrorCode::kInvalidInput, {"dir/config.json: "});
  for (const std::string& part : all) expect_error([&] { parse_json(text, "p", limits); }, ErrorCode::kInvalidInput, {part});
}

TEST(Json, KeepsValuesAndTheOrderOfKeys) {
  const Json json = parse_json(R"( {"z": [1, -2, 1.5, 18446744073709551615, true, null, "é\n"], "a": {"b": {}, "c": []}} )", "p");
  EXPECT_EQ(json.dump(), R"({"z":[1,-2,1.5,18446744073709551615,true,null,"é\n"],"a":{"b":{},"c":[]}})");
  EXPECT_EQ(parse_json("7", "p"), Json(7));
}

TEST(Json, RefusesDuplicateKeysAtAnyDepth) {
  expect_refused(R"({"a":1,"b":2,"a":3})", {"'a'", "twice"});
  expect_refused(R"([{"x":{"k":1,"k":1}}])", {"'k'", "twice"});
  expect_refused("{\"a\":1,\"\\u0061\":2}", {"'a'", "twice"});
  EXPECT_NO_THROW(parse_json(R"({"a":{"a":1},"b":{"a":1}})", "p"));
}

TEST(Json, RefusesNestingBeyondTheLimit) {
  EXPECT_NO_THROW(parse_json(std::string(64, '[') + std::string(64, ']'), "p"));
  expect_refused(std::string(65, '[') + std::string(65, ']'), {"deeper than 64"});
  expect_refused(std::string(1'000'000, '['), {"deeper than 64"});
}

TEST(Json, RefusesTextBeyondTheLimit) { expect_refused("[1,2]", {"5 bytes", "at most 4"}, {.max_bytes = 4}); }

TEST(Json, RefusesSyntaxErrorsWithTheirPosition) {
  expect_refused("{\"a\":1,}", {"not valid JSON", "byte 8"});
  expect_refused("{\"a\":1} x", {"not valid JSON", "byte 9"});
  expect_refused("{\"a\":", {"not valid JSON"});
  expect_refused("{'a':1}", {"not valid JSON"});
  expect_refused("// comment\n{}", {"not valid JSON"});
}

TEST(Json, RefusesNumbersThatAreNone) {
  for (const char* text : {"[NaN]", "[Infinity]", "[-Infinity]"}) expect_refused(text, {"NaN and Infinity are not JSON"});
  expect_refused("[1e999]", {"not valid JSON", "overflow"});
  expect_refused("[01]", {"not valid JSON"});
}

TEST(Json, RefusesWhatIsNotPlainUtf8Text) {
  expect_refused("", {"empty (0 bytes)"});
  expect_refused(" \n", {"empty (2 bytes)"});
  expect_refused("\xef\xbb\xbf{}", {"byte order mark"});
  expect_refused("[\"\xff\"]", {"not valid UTF-8"});
  expect_refused("[\"\xed\xa0\x80\"]", {"not valid UTF-8"});
  expect_refused(std::string_view("{}\0garbage", 10), {"zero byte", "byte 2"});
  expect_refused("[\"a\nb\"]", {"not valid JSON"});
}

}  // namespace
}  // namespace moeweld::formats
