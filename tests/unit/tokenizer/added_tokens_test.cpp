#include "tokenizer/added_tokens.h"

#include <gtest/gtest.h>

#include "unit/expect_error.h"
#include "unit/tokenizer/component.h"

namespace moeweld::tokenizer {
namespace {

// Expected values: the documentation of AddedToken in the `tokenizers` library, checked against version 0.23.3.

AddedTokens make(std::vector<AddedToken> tokens) {
  AddedTokens result;
  result.add(
      std::move(tokens), [](std::string_view) { return std::nullopt; }, 100);
  result.prepare([](const std::string& content) { return content; });
  return result;
}

/// The pieces of a text; tokens as "[id]".
Strings cut(const AddedTokens& tokens, std::string_view text, bool normalized = false) {
  Strings result;
  for (const TextOrToken& part : tokens.cut(text, normalized))
    result.push_back(part.id ? "[" + std::to_string(*part.id) + "]" : std::string(part.text));
  return result;
}

AddedToken raw(const std::string& content) { return {.content = content, .normalized = false}; }

TEST(AddedTokens, AreCutOutOfTheText) {
  const AddedTokens tokens = make({raw("<a>"), raw("<b>")});
  EXPECT_EQ(cut(tokens, "x<a> y<b><a>"), (Strings{"x", "[100]", " y", "[101]", "[100]"}));
  EXPECT_EQ(cut(tokens, "<a"), Strings{"<a"});
  EXPECT_EQ(cut(tokens, ""), Strings{});
}

TEST(AddedTokens, TheLeftmostIsTakenOfThoseTheLongest) {
  const AddedTokens tokens = make({raw("ab"), raw("abc"), raw("bcd"), raw("x")});
  EXPECT_EQ(cut(tokens, "abcd"), (Strings{"[101]", "d"}));
  EXPECT_EQ(cut(tokens, "abd"), (Strings{"[100]", "d"}));
  EXPECT_EQ(cut(tokens, "bcdx"), (Strings{"[102]", "[103]"}));
}

TEST(AddedTokens, AreLookedForInRawOrNormalizedTextButNotInBoth) {
  const AddedTokens tokens = make({raw("A"), {.content = "B"}});
  EXPECT_EQ(cut(tokens, "AB", false), (Strings{"[100]", "B"}));
  EXPECT_EQ(cut(tokens, "AB", true), (Strings{"A", "[101]"}));
}

TEST(AddedTokens, SpecialOnesAreRawWhereTheFileSaysNothing) {
  const std::string path = "tokenizer.json";
  const auto parse = [&](const std::string& json) {
    const Json parsed = formats::parse_json(json, path);
    return parse_added_token(Fields(parsed, "added_tokens[0]", path));
  };
  EXPECT_FALSE(parse(R"({"content": "a", "special": true})").normalized);
  EXPECT_TRUE(parse(R"({"content": "a", "special": false})").normalized);
  EXPECT_TRUE(parse(R"({"content": "a", "special": true, "normalized": true})").normalized);
  EXPECT_EQ(parse(R"({"content": "a", "single_word": true, "lstrip": true, "rstrip": true, "normalized": false})"),
            (AddedToken{.content = "a", .single_word = true, .lstrip = true, .rstrip = true, .normalized = false}));
  expect_error([&] { parse(R"({"special": true})"); }, ErrorCode::kInvalidInput, {"'added_tokens[0]' has no 'content'"});
  expect_error([&] { parse(R"({"content": "a", "lstrip": "yes"})"); }, ErrorCode::kInvalidInput, {"lstrip", "neither true nor false"});
}

TEST(AddedTokens, StripTakesWhiteSpaceOfAllKinds) {
  AddedToken left = raw("<l>"), right = raw("<r>");
  left.lstrip = right.rstrip = true;
  const AddedTokens tokens = make({left, right});
  EXPECT_EQ(cut(tokens, "a \t<l> b"), (Strings{"a", "[100]", " b"}));
  EXPECT_EQ(cut(tokens, "a <r>\xc2\xa0\xe3\x80\x80 b"), (Strings{"a ", "[101]", "b"}));
  EXPECT_EQ(cut(tokens, " <l>"), Strings{"[100]"});
  EXPECT_EQ(cut(tokens, "<r> <l>"), (Strings{"[101]", "[100]"}));  // what one has taken is not there for the other
}

TEST(AddedTokens, SingleWordsTouchNoWordCharacter) {
  AddedToken word = raw("cat");
  word.single_word = true;
  const AddedTokens tokens = make({word});
  for (const char* text : {"cats", "xcat", "cat_", "1cat",
                           "\xc3\xa9"
                           "cat"})
    EXPECT_EQ(cut(tokens, text), Strings{text}) << text;
  EXPECT_EQ(cut(tokens, "cat"), Strings{"[100]"});
  EXPECT_EQ(cut(tokens, "a cat, catcat cat"), (Strings{"a ", "[100]", ", catcat ", "[100]"}));
}

TEST(AddedTokens, IdsAreTheModelsElseFollowTheLargest) {
  AddedTokens tokens;
  const auto model_id = [](std::string_view token) { return token == "known" ? std::optional<std::int64_t>(7) : std::nullopt; };
  tokens.add({raw("known"), raw("first"), raw("second"), raw("first"), raw("")}, model_id, 10);
  EXPECT_EQ(tokens.id("known"), 7);
  EXPECT_EQ(tokens.id("first"), 10);
  EXPECT_EQ(tokens.id("second"), 11);
  EXPECT_EQ(tokens.id("third"), std::nullopt);
  EXPECT_EQ(tokens.id(""), std::nullopt);
  ASSERT_NE(tokens.token(11), nullptr);
  EXPECT_EQ(tokens.token(11)->content, "second");
  EXPECT_EQ(tokens.token(8), nullptr);
}

TEST(AddedTokens, OneThatIsNothingWhenNormalizedIsRefused) {
  AddedTokens tokens;
  tokens.add(
      {{.content = "\xcc\x81"}}, [](std::string_view) { return std::nullopt; }, 10);
  expect_error([&] { tokens.prepare([](const std::string&) { return std::string(); }); }, ErrorCode::kUnsupported, {"nothing is left"});
}

}  // namespace
}  // namespace moeweld::tokenizer
