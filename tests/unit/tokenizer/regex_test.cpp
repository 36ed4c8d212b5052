#include "tokenizer/regex.h"

#include <gtest/gtest.h>

#include "tokenizer/pattern.h"
#include "unit/expect_error.h"

namespace moeweld::tokenizer {
namespace {

/// The matches of Oniguruma's syntax in a text.
std::vector<std::string> matches(std::string_view regex, const std::string& text) {
  std::vector<std::string> result;
  for (const Match& match : Pattern(Regex(regex)).cut(text)) {
    if (match.is_match) result.push_back(text.substr(match.begin, match.end - match.begin));
  }
  return result;
}
using Strings = std::vector<std::string>;

// Expected values of this file: Oniguruma's documentation (doc/RE, Ruby syntax), checked against the `tokenizers` library 0.23.3.

TEST(Regex, WhiteSpaceIsUnicodesAndNothingElse) {
  EXPECT_EQ(matches(R"(\s)", "a\t\xc2\x85\xc2\xa0\xe1\x9a\x80\xe2\x80\x8a\xe3\x80\x80z").size(), 6U);
  EXPECT_EQ(matches(R"(\s)", "\xe1\xa0\x8e\xe2\x80\x8b\xef\xbb\xbf"), Strings{});  // U+180E, U+200B, U+FEFF
  EXPECT_EQ(matches(R"([^\S\n]+)", "a \t\n b"), (Strings{" \t", " "}));
}

TEST(Regex, WordCharactersIncludeMarksAndAllNumbers) {
  EXPECT_EQ(matches(R"(\w+)", "e\xcc\x81_\xc2\xb2-\xe2\x93\x90 x"), (Strings{"e\xcc\x81_\xc2\xb2", "\xe2\x93\x90", "x"}));
  EXPECT_EQ(matches(R"([[:word:]]+)", "a\xc2\xb2"), Strings{"a"});  // no superscript two there
  EXPECT_EQ(matches(R"(\bf)",
                    "f xf e\xcc\x81"
                    "f f"),
            (Strings{"f", "f"}));
}

TEST(Regex, PropertiesGoByShortAndLongNames) {
  for (const char* name : {"Lu", "lu", "Uppercase_Letter", "uppercase letter"})
    EXPECT_EQ(matches("\\p{" + std::string(name) + "}", "aB\xc3\x89\xc3\xa9"), (Strings{"B", "\xc3\x89"})) << name;
  EXPECT_EQ(matches(R"(\p{^L}+)", "ab12cd"), Strings{"12"});
  EXPECT_EQ(matches(R"(\P{L}+)", "ab12cd"), Strings{"12"});
  EXPECT_EQ(matches(R"(\p{Han}+)", "a\xe4\xb8\x80\xe3\x80\x81"), Strings{"\xe4\xb8\x80"});  // U+3001 has Han in its extensions only
  EXPECT_EQ(matches(R"([\p{L}\p{M}]+)", "e\xcc\x81 1"), Strings{"e\xcc\x81"});
  EXPECT_EQ(matches(R"([\P{L}a]+)", "ab1!"), (Strings{"a", "1!"}));
}

TEST(Regex, CharactersNewerThanThisMachinesPcreCount) {
  EXPECT_EQ(matches(R"(\p{L})", "\xf0\xae\xaf\xb0"), Strings{"\xf0\xae\xaf\xb0"});  // U+2EBF0, Unicode 15.1
  EXPECT_EQ(matches(R"(\p{N})", "\xf0\x91\xaf\xb0"), Strings{"\xf0\x91\xaf\xb0"});  // U+11BF0, Unicode 16
  EXPECT_EQ(matches(R"([^\p{L}])", "\xf0\xae\xaf\xb0"), Strings{});
}

TEST(Regex, AnchorsAreThoseOfLines) {
  EXPECT_EQ(matches(R"(^\w)", "a\nb\n"), (Strings{"a", "b"}));
  EXPECT_EQ(matches(R"(\w$)", "a\nb\n"), (Strings{"a", "b"}));
  EXPECT_EQ(matches(R"(\A\w)", "a\nb"), Strings{"a"});
  EXPECT_EQ(matches(R"(\w\z)", "a\nb"), Strings{"b"});
  EXPECT_EQ(matches(R"(.+)", "a\rb\nc"), (Strings{"a\rb", "c"}));
  EXPECT_EQ(matches(R"((?m:.+))", "a\nb"), Strings{"a\nb"});
}

TEST(Regex, QuantifiersOfQuantifiers) {
  EXPECT_EQ(matches(R"(a{1,2}+b)", "aaaab"), Strings{"aaaab"});  // (?:a{1,2})+, not possessive
  EXPECT_EQ(matches(R"(a++a)", "aaa"), Strings{});
  EXPECT_EQ(matches(R"(a?+a)", "aa"), Strings{"aa"});
  EXPECT_EQ(matches(R"(xa{2}?)", "xaa x"), (Strings{"xaa", "x"}));  // (?:a{2})?
  EXPECT_EQ(matches(R"(a{1,2}?)", "aa"), (Strings{"a", "a"}));
  EXPECT_EQ(matches(R"(a{,2})", "aaa"), (Strings{"aa", "a"}));
  EXPECT_EQ(matches(R"(a{x})", "a{x}"), Strings{"a{x}"});
  EXPECT_EQ(matches(R"((?:ab)*{2})", "abab"), Strings{"abab"});
}

TEST(Regex, OptionsHoldToTheEndOfTheirGroup) {
  EXPECT_EQ(matches(R"((?i:'s|'t))", "'S 's 'T"), (Strings{"'S", "'s", "'T"}));
  EXPECT_EQ(matches(R"(a(?i)b|c)", "aB aC c"), (Strings{"aB", "aC"}));  // over the alternatives: a(?i:b|c)
  EXPECT_EQ(matches(R"((?i:'s))", "'\xc5\xbf"), Strings{"'\xc5\xbf"});  // long s
  EXPECT_EQ(matches(R"((?i-i:a)b)", "Ab ab"), Strings{"ab"});
}

TEST(Regex, ClassesNestAndIntersect) {
  EXPECT_EQ(matches(R"([a-z&&[^aeiou]]+)", "hello"), (Strings{"h", "ll"}));
  EXPECT_EQ(matches(R"([a[bc]]+)", "abcd"), Strings{"abc"});
  EXPECT_EQ(matches(R"([^a[bc]]+)", "abcd-e"), Strings{"d-e"});
  EXPECT_EQ(matches(R"([\]\[\-^]+)", "a]-[^b"), Strings{"]-[^"});
  EXPECT_EQ(matches(R"([]a]+)", "]a["), Strings{"]a"});
  EXPECT_EQ(matches(R"([a-]+)", "-a-b"), Strings{"-a-"});
  EXPECT_EQ(matches(R"([[:punct:]]+)", "a$.\xe2\x82\xac"), Strings{"$.\xe2\x82\xac"});  // symbols too
  EXPECT_EQ(matches(R"(\p{Punct}+)", "a$."), Strings{"."});
  EXPECT_EQ(matches(R"(\h+)", "x0aF "), Strings{"0aF"});
  EXPECT_EQ(matches(R"(\v)", "\x0b\n"), Strings{"\x0b"});
}

// Llama 3's pre-tokenizer, alternative by alternative: contractions in any case, letters with one character before them, up to three
// digits, punctuation with a space before it and line ends behind it, line ends, white space but for its last character, white space.
TEST(Regex, APublishedPatternCutsAsItReads) {
  const char* const llama3 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  EXPECT_EQ(matches(llama3, "I'LL pay $12345,\n\n  now.  "),
            (Strings{"I", "'LL", " pay", " $", "123", "45", ",\n\n", " ", " now", ".", "  "}));
  EXPECT_EQ(matches(llama3, "a\t\tb \n c"), (Strings{"a", "\t", "\tb", " \n", " c"}));
}

TEST(Regex, WhatMeansTheSameInBothIsLeftAsItIs) {
  for (const char* regex : {"abc", "a|b", "(?:ab)?c", "a*?", "(?=a)b", "(?<!a)b"}) EXPECT_EQ(translate_regex(regex), regex);
}

TEST(Regex, EmptyMatchesDoNotFollowAMatch) {
  const auto cut = Pattern(Regex("x*")).cut("axxb");
  std::vector<std::pair<std::size_t, std::size_t>> found;
  for (const Match& match : cut) {
    if (match.is_match) found.emplace_back(match.begin, match.end);
  }
  EXPECT_EQ(found, (std::vector<std::pair<std::size_t, std::size_t>>{{0, 0}, {1, 3}, {4, 4}}));
}

TEST(Regex, LookBehindSeesWhatIsBeforeTheSearch) { EXPECT_EQ(matches(R"(a|(?<=a)b)", "ab b"), (Strings{"a", "b"})); }

TEST(Regex, WhatHasNoTranslationIsRefusedByName) {
  for (const auto& [regex, part] : std::vector<std::pair<std::string, std::string>>{{R"(\X)", "'\\X'"},
                                                                                    {R"(\K)", "'\\K'"},
                                                                                    {R"((?~a))", "'(?~'"},
                                                                                    {R"((*FAIL))", "'(*'"},
                                                                                    {R"((?x: a))", "'(?x'"},
                                                                                    {R"(\pL)", "\\p without braces"},
                                                                                    {R"([[:graph:]])", "graph"},
                                                                                    {R"(\k<a>)", "'\\k'"},
                                                                                    {R"(\xff)", "byte"}})
    expect_error([&] { Regex{regex}; }, ErrorCode::kUnsupported, {part, "not supported"});
}

TEST(Regex, MalformedOnesAreRefused) {
  for (const char* regex : {"(a", "a)", "[a", "*a", "[b-a]", R"(\p{Lu)", R"(a\)", R"(\x{110000})", R"(\x{d800})", "[]", "(?i", "(?<n"})
    expect_error([&] { Regex{regex}; }, ErrorCode::kInvalidInput, {"the regular expression"});
  expect_error([&] { Regex{R"(\p{NoSuchScript})"}; }, ErrorCode::kInvalidInput, {"cannot be compiled"});
  expect_error([&] { Regex{std::string(200'000, 'a')}; }, ErrorCode::kInvalidInput, {"more than 100000 bytes"});
  expect_error([&] { Regex{std::string(5000, '(') + "a" + std::string(5000, ')')}; }, ErrorCode::kInvalidInput, {"deeper than"});
}

TEST(Regex, TooManyStepsEndInAnError) {
  const Regex regex("(a+)+$");
  expect_error([&] { regex.find(std::string(5000, 'a') + "b", 0); }, ErrorCode::kInvalidInput, {"takes too many steps", "(a+)+$"});
}

TEST(Regex, LongRunsAreNoTroubleForOrdinaryPatterns) {
  const std::string spaces(1'000'000, ' ');
  EXPECT_EQ(matches(R"(\s+(?!\S)|\s+)", spaces + "x").size(), 2U);
  EXPECT_EQ(matches(R"((?:a|b)*)", std::string(300'000, 'a')).size(), 1U);
}

}  // namespace
}  // namespace moeweld::tokenizer
