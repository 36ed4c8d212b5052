#include "tokenizer/json_tokenizer.h"

#include <gtest/gtest.h>

#include <memory>

#include "unit/expect_error.h"
#include "unit/tokenizer/component.h"

namespace moeweld::tokenizer {
namespace {

// Expected ids follow from the definition of each step, written out beside them; the `tokenizers` library 0.23.3 gives the same.

std::shared_ptr<const Tokenizer> make(const std::string& json) { return parse_tokenizer_json(json, "tokenizer.json"); }

/// Bytes as letters, a few merges: "ab" is 5, "Ġab" is 6, "Ã©" (the bytes of é) is 9.
const char* const kByteLevelModel =
    R"({"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "1": 3, "Ġ": 4, "ab": 5, "Ġab": 6, "Ã": 7, "©": 8, "Ã©": 9, "<s>": 10},
        "merges": ["a b", "Ġ ab", "Ã ©"]})";
const char* const kByteLevel =
    R"({"type": "Sequence", "pretokenizers": [
          {"type": "Split", "pattern": {"Regex": "\\p{N}| ?[^\\s\\p{N}]+|\\s+"}, "behavior": "Isolated", "invert": false},
          {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]})";
const char* const kAdded =
    R"([{"id": 10, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
        {"id": 11, "content": "<sep>", "single_word": false, "lstrip": true, "rstrip": true, "normalized": false, "special": true},
        {"id": 12, "content": "Tool", "single_word": false, "lstrip": false, "rstrip": false, "normalized": true, "special": false}])";

TEST(JsonTokenizer, GoesFromTextToIds) {
  const auto tokenizer = make(tokenizer_json(kByteLevelModel, R"({"type": "NFC"})", kByteLevel, kAdded));
  EXPECT_EQ(tokenizer->encode(""), Ids{});
  EXPECT_EQ(tokenizer->encode("ab ab"), (Ids{5, 6}));       // pieces "ab", " ab"
  EXPECT_EQ(tokenizer->encode("abab"), (Ids{5, 5}));        // one piece; nothing merges "ab ab"
  EXPECT_EQ(tokenizer->encode("a11 "), (Ids{0, 3, 3, 4}));  // digits by themselves
  EXPECT_EQ(tokenizer->encode("e\xcc\x81"), Ids{9});        // NFC makes an é of it
  EXPECT_EQ(tokenizer->encode("<s>ab<s>"), (Ids{10, 5, 10}));
  EXPECT_EQ(tokenizer->encode("ab <sep> ab"), (Ids{5, 11, 5}));  // it takes the spaces with it
  EXPECT_EQ(tokenizer->encode("aTool b"), (Ids{0, 12, 4, 1}));
}

TEST(JsonTokenizer, NormalizedTokensAreLookedForInNormalizedTextAndRawOnesAreNot) {
  const std::string model = R"({"type": "BPE", "vocab": {"a": 0, "b": 1, "t": 2, "o": 3, "l": 4, "<": 5, "s": 6, ">": 7}, "merges": []})";
  const std::string added =
      R"([{"id": 8, "content": "Tool", "normalized": true, "special": false},
          {"id": 9, "content": "<S>", "normalized": false, "special": true}])";
  const auto tokenizer = make(tokenizer_json(model, R"({"type": "Lowercase"})", "null", added));
  EXPECT_EQ(tokenizer->encode("aTOOLb"), (Ids{0, 8, 1}));
  EXPECT_EQ(tokenizer->encode("tool"), Ids{8});
  EXPECT_EQ(tokenizer->encode("A<S>B"), (Ids{0, 9, 1}));
  EXPECT_EQ(tokenizer->encode("<s>"), (Ids{5, 6, 7}));
}

// Metaspace's scheme "first": a mark before the text's first piece only, not behind an added token.
TEST(JsonTokenizer, KnowsWhereTheTextBegins) {
  const std::string model = R"({"type": "BPE", "vocab": {"▁": 0, "a": 1, "▁a": 2, "<s>": 3}, "merges": ["▁ a"]})";
  const std::string added = R"([{"id": 3, "content": "<s>", "normalized": false, "special": true}])";
  const auto with = [&](const std::string& scheme) {
    return make(tokenizer_json(model, "null",
                               R"({"type": "Metaspace", "replacement": "▁", "split": false, "prepend_scheme": ")" + scheme + "\"}", added));
  };
  EXPECT_EQ(with("first")->encode("a<s>a"), (Ids{2, 3, 1}));
  EXPECT_EQ(with("first")->encode("<s>a"), (Ids{3, 1}));
  EXPECT_EQ(with("always")->encode("a<s>a"), (Ids{2, 3, 2}));
  EXPECT_EQ(with("never")->encode("a<s> a"), (Ids{1, 3, 2}));
}

TEST(JsonTokenizer, TokensHaveIdsAndBack) {
  const auto tokenizer = make(tokenizer_json(R"({"type": "BPE", "vocab": {"a": 0, "b": 5}, "merges": []})", "null", "null",
                                             R"([{"id": 9, "content": "<x>", "special": true}, {"id": 5, "content": "b"}])"));
  EXPECT_EQ(tokenizer->vocabulary_size(), 3U);
  EXPECT_EQ(tokenizer->id_limit(), 6);  // <x> gets the vocabulary's size, 2, or one more than the largest added id so far
  EXPECT_EQ(tokenizer->token_to_id("<x>"), 2);
  EXPECT_EQ(tokenizer->id_to_token(5), "b");
  EXPECT_EQ(tokenizer->id_to_token(4), std::nullopt);
  EXPECT_EQ(tokenizer->token_to_id("c"), std::nullopt);
  EXPECT_EQ(tokenizer->bos_id(), std::nullopt);
}

TEST(JsonTokenizer, OlderFilesDoNotNameTheirModel) {
  EXPECT_EQ(make(R"({"model": {"vocab": {"a": 4}, "merges": []}})")->encode("aa"), (Ids{4, 4}));
}

TEST(JsonTokenizer, TextThatIsNoUtf8IsRefusedWithItsByte) {
  const auto tokenizer = make(tokenizer_json(kByteLevelModel, "null", kByteLevel));
  for (const char* text : {"ab\xff", "ab\xc3", "ab\xed\xa0\x80", "ab\xc0\xaf"})
    expect_error([&] { tokenizer->encode(text); }, ErrorCode::kInvalidInput, {"not valid UTF-8 at byte 2"});
}

TEST(JsonTokenizer, DamagedFilesAreRefusedWithTheirPlace) {
  const auto refused = [](const std::string& json, std::initializer_list<std::string> parts, ErrorCode code = ErrorCode::kInvalidInput) {
    SCOPED_TRACE(json);
    expect_error([&] { make(json); }, code, {"tokenizer.json"});
    expect_error([&] { make(json); }, code, parts);
  };
  refused("{", {"JSON"});
  refused("[]", {"no JSON object"});
  refused("{}", {"'model'"});
  for (const char* type : {"WordPiece", "Unigram", "WordLevel"})
    refused(tokenizer_json(std::string(R"({"type": ")") + type + R"(", "vocab": {}})"), {type, "is not supported", "BPE"},
            ErrorCode::kUnsupported);
  refused(tokenizer_json(kByteLevelModel, R"({"type": "Precompiled"})"), {"'normalizer'", "Precompiled"}, ErrorCode::kUnsupported);
  refused(tokenizer_json(kByteLevelModel, "null", R"({"type": "Splits"})"), {"'pre_tokenizer'", "Splits"}, ErrorCode::kUnsupported);
  refused(tokenizer_json(kByteLevelModel, "null", "null", R"({"<s>": 1})"), {"'added_tokens'"});
  refused(tokenizer_json(kByteLevelModel, "null", "null", R"([{"id": 1}])"), {"'added_tokens[0]'", "'content'"});
  refused(tokenizer_json(kByteLevelModel, R"({"type": "StripAccents"})", "null", R"([{"id": 1, "content": "\u0301", "normalized": true}])"),
          {"'added_tokens'", "nothing is left"}, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace moeweld::tokenizer
