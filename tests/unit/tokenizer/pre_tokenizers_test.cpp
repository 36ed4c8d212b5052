#include "tokenizer/pre_tokenizers.h"

#include <gtest/gtest.h>

#include "unit/expect_error.h"
#include "unit/tokenizer/component.h"

namespace moeweld::tokenizer {
namespace {

// Expected values: pre_tokenize_str of the `tokenizers` library 0.23.3, or by hand from the component's definition.

std::string split(const std::string& pattern, const std::string& behavior, const std::string& invert = "false") {
  return R"({"type": "Split", "pattern": )" + pattern + R"(, "behavior": ")" + behavior + R"(", "invert": )" + invert + "}";
}

TEST(PreTokenizer, SplitHasFiveBehaviors) {
  const std::string dash = R"({"String": "-"})", text = "-a--b";
  EXPECT_EQ(pieces(split(dash, "Removed"), text), (Strings{"a", "b"}));
  EXPECT_EQ(pieces(split(dash, "Isolated"), text), (Strings{"-", "a", "-", "-", "b"}));
  EXPECT_EQ(pieces(split(dash, "MergedWithPrevious"), text), (Strings{"-", "a-", "-", "b"}));
  EXPECT_EQ(pieces(split(dash, "MergedWithNext"), text), (Strings{"-a", "-", "-b"}));
  EXPECT_EQ(pieces(split(dash, "Contiguous"), text), (Strings{"-", "a", "--", "b"}));
}

TEST(PreTokenizer, SplitInverted) {
  const std::string word = R"({"Regex": "\\w+|[^\\w\\s]+"})", text = "How are you?";
  EXPECT_EQ(pieces(split(word, "Removed", "true"), text), (Strings{"How", "are", "you", "?"}));
  EXPECT_EQ(pieces(split(word, "Isolated", "true"), text), (Strings{"How", " ", "are", " ", "you", "?"}));
  EXPECT_EQ(pieces(split(word, "MergedWithPrevious", "true"), text), (Strings{"How ", "are ", "you", "?"}));
  EXPECT_EQ(pieces(split(word, "MergedWithNext", "true"), text), (Strings{"How", " are", " you", "?"}));
  EXPECT_EQ(pieces(split(word, "Contiguous", "true"), text), (Strings{"How", " ", "are", " ", "you?"}));
}

TEST(PreTokenizer, SplitAtTheEmptyString) {
  EXPECT_EQ(pieces(split(R"({"String": ""})", "Isolated"), "a\xc3\xa9z"), (Strings{"a", "\xc3\xa9", "z"}));
}

TEST(PreTokenizer, ByteLevelCutsLikeGpt2) {
  const std::string plain = R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true})";
  EXPECT_EQ(pieces(plain, "Hello my friend, it's  2 day?"), (Strings{"Hello", "\xc4\xa0my",
                                                                     "\xc4\xa0"
                                                                     "friend",
                                                                     ",", "\xc4\xa0it", "'s", "\xc4\xa0",
                                                                     "\xc4\xa0"
                                                                     "2",
                                                                     "\xc4\xa0"
                                                                     "day",
                                                                     "?"}));
  EXPECT_EQ(pieces(plain, "a\nb"), (Strings{"a", "\xc4\x8a", "b"}));
  EXPECT_EQ(pieces(R"({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": false})", "a b"),
            Strings{"\xc4\xa0"
                    "a\xc4\xa0"
                    "b"});
  EXPECT_EQ(pieces(R"({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true})", " a"), Strings{"\xc4\xa0"
                                                                                                              "a"});
}

TEST(PreTokenizer, ByteLevelHas256Characters) {
  std::string bytes;
  for (int i = 1; i < 0x80; ++i) bytes += static_cast<char>(i);
  const std::string shown =
      pieces(R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false})", bytes)[0];
  EXPECT_EQ(shown.substr(0, 4), "\xc4\x81\xc4\x82");        // 1 and 2 are U+0101 and U+0102
  EXPECT_EQ(shown.substr(shown.size() - 4), "}~\xc4\xa1");  // 127 is U+0121: 33 others come before it
}

const std::string kMark = "\xe2\x96\x81";
std::string metaspace(const std::string& rest) { return R"({"type": "Metaspace", "replacement": ")" + kMark + "\"" + rest + "}"; }

TEST(PreTokenizer, MetaspaceSchemes) {
  EXPECT_EQ(pieces(metaspace(R"(, "prepend_scheme": "always", "split": true)"), "a  b"), (Strings{kMark + "a", kMark, kMark + "b"}));
  EXPECT_EQ(pieces(metaspace(R"(, "prepend_scheme": "never", "split": true)"), "a b"), (Strings{"a", kMark + "b"}));
  EXPECT_EQ(pieces(metaspace(R"(, "prepend_scheme": "first", "split": false)"), "a b"), Strings{kMark + "a" + kMark + "b"});
  EXPECT_EQ(pieces(metaspace(R"(, "prepend_scheme": "always", "split": false)"), " a"), Strings{kMark + "a"});
  EXPECT_EQ(pieces(metaspace(R"(, "add_prefix_space": false)"), "a"), Strings{"a"});  // files of older versions
  EXPECT_EQ(pieces(metaspace(R"(, "add_prefix_space": true)"), "a"), Strings{kMark + "a"});
  const std::string after_split = R"({"type": "Sequence", "pretokenizers": [)" + split(R"({"String": "x"})", "Removed") + ", ";
  EXPECT_EQ(pieces(after_split + metaspace(R"(, "prepend_scheme": "first")") + "]}", "axb"), (Strings{kMark + "a", "b"}));
  EXPECT_EQ(pieces(after_split + metaspace(R"(, "prepend_scheme": "always")") + "]}", "axb"), (Strings{kMark + "a", kMark + "b"}));
}

TEST(PreTokenizer, Digits) {
  EXPECT_EQ(pieces(R"({"type": "Digits", "individual_digits": true})", "a12\xc2\xbd"), (Strings{"a", "1", "2", "\xc2\xbd"}));
  EXPECT_EQ(pieces(R"({"type": "Digits", "individual_digits": false})", "a12\xd9\xa3z"), (Strings{"a", "12\xd9\xa3", "z"}));
}

TEST(PreTokenizer, Punctuation) {
  EXPECT_EQ(pieces(R"({"type": "Punctuation"})", "a$.b\xe2\x82\xac\xe3\x80\x82"),
            (Strings{"a", "$", ".", "b\xe2\x82\xac", "\xe3\x80\x82"}));
  EXPECT_EQ(pieces(R"({"type": "Punctuation", "behavior": "Contiguous"})", "a$.b"), (Strings{"a", "$.", "b"}));
  EXPECT_EQ(pieces(R"({"type": "Punctuation"})",
                   "a\xd8\x9d"
                   "b"),
            Strings{"a\xd8\x9d"
                    "b"});  // U+061D, Unicode 14: newer than the library's table
}

TEST(PreTokenizer, WhiteSpaceKinds) {
  EXPECT_EQ(pieces(R"({"type": "Whitespace"})", " Hey, e\xcc\x81_1\xc2\xb2!\xe3\x80\x80x"),
            (Strings{"Hey", ",", "e\xcc\x81_1", "\xc2\xb2!", "x"}));
  EXPECT_EQ(pieces(R"({"type": "WhitespaceSplit"})", " Hey,\xc2\xa0x! "), (Strings{"Hey,", "x!"}));
  EXPECT_EQ(pieces(R"({"type": "CharDelimiterSplit", "delimiter": "-"})", "a--b"), (Strings{"a", "b"}));
  EXPECT_EQ(pieces(R"({"type": "BertPreTokenizer"})", "a, b"), (Strings{"a", ",", "b"}));
}

TEST(PreTokenizer, SequenceCutsPiecesFurther) {
  EXPECT_EQ(pieces(R"({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true},
                       {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]})",
                   "a 12"),
            (Strings{"a", "\xc4\xa0", "1", "2"}));
}

TEST(PreTokenizer, OthersAndContradictionsAreRefused) {
  expect_error([] { pieces(R"({"type": "UnicodeScripts"})", ""); }, ErrorCode::kUnsupported,
               {"'pre_tokenizer'", "UnicodeScripts", "there are Split"});
  expect_error([] { pieces(split(R"({"String": "a"})", "Merged"), ""); }, ErrorCode::kInvalidInput, {"pre_tokenizer.behavior", "'Merged'"});
  expect_error([] { pieces(metaspace(R"(, "prepend_scheme": "last")"), ""); }, ErrorCode::kInvalidInput, {"prepend_scheme", "'last'"});
  expect_error([] { pieces(metaspace(R"(, "prepend_scheme": "first", "add_prefix_space": false)"), ""); }, ErrorCode::kInvalidInput,
               {"contradict"});
  expect_error([] { pieces(R"({"type": "Metaspace", "replacement": "ab"})", ""); }, ErrorCode::kInvalidInput, {"not one character"});
  expect_error([] { pieces(R"({"type": "Digits", "individual_digits": 1})", ""); }, ErrorCode::kInvalidInput, {"neither true nor false"});
  expect_error([] { pieces(R"({})", ""); }, ErrorCode::kInvalidInput, {"has no 'type'"});
}

}  // namespace
}  // namespace moeweld::tokenizer
