#include "tokenizer/bpe.h"

#include <gtest/gtest.h>

#include <random>

#include "unit/expect_error.h"
#include "unit/tokenizer/component.h"

namespace moeweld::tokenizer {
namespace {

Bpe make_bpe(const std::string& json) {
  const std::string path = "tokenizer.json";
  const Json parsed = formats::parse_json(json, path);
  return Bpe(Fields(parsed, "model", path));
}

Strings encode(const Bpe& bpe, std::string_view text) {
  Ids ids;
  bpe.encode(text, ids);
  Strings result;
  for (const auto id : ids) result.emplace_back(bpe.vocabulary().token(id).value());
  return result;
}

const char* const kUnrelated =
    R"({"type": "BPE", "vocab": {"u":0,"n":1,"r":2,"e":3,"l":4,"a":5,"t":6,"d":7,"re":8,"at":9,"ed":10,"un":11,"ated":12,
  "rel":13,"related":14,"unrelated":15}, "merges": ["r e","a t","e d","u n",["at","ed"],"re l","rel ated","un related"]})";

TEST(Bpe, MergesByRank) {
  const Bpe bpe = make_bpe(kUnrelated);
  EXPECT_EQ(encode(bpe, "unrelated"), Strings{"unrelated"});
  EXPECT_EQ(encode(bpe, "related"), Strings{"related"});
  EXPECT_EQ(encode(bpe, "dated"), (Strings{"d", "ated"}));  // a t comes before e d
  EXPECT_EQ(encode(bpe, ""), Strings{});
}

TEST(Bpe, TheLeftmostOfEqualRanksComesFirst) {
  const Bpe bpe = make_bpe(R"({"vocab": {"a":0,"aa":1}, "merges": ["a a"]})");
  EXPECT_EQ(encode(bpe, "aaa"), (Strings{"aa", "a"}));
}

/// The definition: again and again the pair of lowest rank, the leftmost of several. Quadratic.
Strings by_definition(const std::vector<std::pair<std::string, std::string>>& merges, Strings symbols) {
  while (true) {
    std::size_t best = merges.size(), where = 0;
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
      for (std::size_t rank = 0; rank < best; ++rank) {
        if (merges[rank].first == symbols[i] && merges[rank].second == symbols[i + 1]) {
          best = rank;
          where = i;
        }
      }
    }
    if (best == merges.size()) return symbols;
    symbols[where] += symbols[where + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(where) + 1);
  }
}

TEST(Bpe, AgreesWithItsDefinitionOnRandomVocabularies) {
  const unsigned seed = 20251;
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 60; ++round) {
    // Every token from one pair only: then the library's check of old candidates and the definition mean the same.
    std::vector<std::string> tokens{"a", "b", "c"};
    std::vector<std::pair<std::string, std::string>> merges;
    while (merges.size() < 30) {
      const std::string left = tokens[random() % tokens.size()], right = tokens[random() % tokens.size()];
      if (left.size() + right.size() > 12 || std::find(tokens.begin(), tokens.end(), left + right) != tokens.end()) continue;
      tokens.push_back(left + right);
      merges.emplace_back(left, right);
    }
    formats::Json json;
    for (std::size_t i = 0; i < tokens.size(); ++i) json["vocab"][tokens[i]] = i;
    for (const auto& [left, right] : merges) json["merges"].push_back({left, right});
    const Bpe bpe = make_bpe(json.dump());
    for (int word = 0; word < 30; ++word) {
      std::string text;
      Strings symbols;
      for (std::size_t i = 0, size = random() % 60; i < size; ++i) {
        text += "abc"[random() % 3];
        symbols.emplace_back(1, text.back());
      }
      ASSERT_EQ(encode(bpe, text), by_definition(merges, symbols)) << json.dump() << " on " << text;
    }
  }
}

TEST(Bpe, ALongWordTakesNoLongTime) {
  const Bpe bpe = make_bpe(kUnrelated);
  std::string word;
  for (int i = 0; i < 200'000; ++i) word += "unrelated";
  EXPECT_EQ(encode(bpe, word).size(), 200'000U);
}

TEST(Bpe, UnknownCharacters) {
  const std::string vocab = R"("vocab": {"<unk>":0,"a":1,"b":2}, "merges": [])";
  EXPECT_EQ(encode(make_bpe("{" + vocab + R"(, "unk_token": "<unk>"})"), "accb"), (Strings{"a", "<unk>", "<unk>", "b"}));
  EXPECT_EQ(encode(make_bpe("{" + vocab + R"(, "unk_token": "<unk>", "fuse_unk": true})"), "accb"), (Strings{"a", "<unk>", "b"}));
  EXPECT_EQ(encode(make_bpe("{" + vocab + "}"), "acb"), (Strings{"a", "b"}));  // nothing stands for it
  const Bpe missing = make_bpe(R"({"vocab": {"a":0}, "merges": [], "unk_token": "<unk>"})");
  EXPECT_EQ(encode(missing, "a"), Strings{"a"});
  expect_error([&] { encode(missing, "b"); }, ErrorCode::kInvalidInput, {"'<unk>'", "vocabulary"});
}

TEST(Bpe, ByteFallback) {
  const Bpe bpe =
      make_bpe(R"({"vocab": {"<unk>":0,"a":1,"<0xC3>":2,"<0xA9>":3}, "merges": [], "unk_token": "<unk>", "byte_fallback": true})");
  EXPECT_EQ(encode(bpe, "a\xc3\xa9"), (Strings{"a", "<0xC3>", "<0xA9>"}));
  EXPECT_EQ(encode(bpe, "a\xc3\xa8"), (Strings{"a", "<unk>"}));  // <0xA8> is missing
  // The library adds bytes before an unknown character that it still holds back.
  EXPECT_EQ(encode(bpe,
                   "x\xc3\xa9"
                   "a"),
            (Strings{"<0xC3>", "<0xA9>", "<unk>", "a"}));
}

TEST(Bpe, IgnoreMergesLooksForTheWholeWordFirst) {
  const std::string rest = R"("vocab": {"a":0,"b":1,"c":2,"abc":3,"bc":4}, "merges": ["b c"])";
  EXPECT_EQ(encode(make_bpe("{" + rest + R"(, "ignore_merges": true})"), "abc"), Strings{"abc"});
  EXPECT_EQ(encode(make_bpe("{" + rest + "}"), "abc"), (Strings{"a", "bc"}));
}

TEST(Bpe, PrefixAndSuffix) {
  const Bpe bpe = make_bpe(R"({"vocab": {"a":0,"##b":1,"##b</w>":2,"ab</w>":3,"a</w>":4}, "merges": ["a ##b</w>"], "unk_token": null,
                           "continuing_subword_prefix": "##", "end_of_word_suffix": "</w>"})");
  EXPECT_EQ(encode(bpe, "ab"), Strings{"ab</w>"});
  EXPECT_EQ(encode(bpe, "a"), Strings{"a</w>"});
  EXPECT_EQ(encode(bpe, "abb"), (Strings{"a", "##b", "##b</w>"}));
}

TEST(Bpe, DamagedModelsAreRefused) {
  const auto refused = [](const std::string& json, std::initializer_list<std::string> parts, ErrorCode code = ErrorCode::kInvalidInput) {
    expect_error([&] { make_bpe(json); }, code, {"tokenizer.json: "});
    expect_error([&] { make_bpe(json); }, code, parts);
  };
  refused(R"({"vocab": {"a":0}, "merges": ["a b"]})", {"'model.merges[0]'", "'b'", "vocabulary"});
  refused(R"({"vocab": {"a":0,"b":1}, "merges": ["a b"]})", {"'ab'"});
  refused(R"({"vocab": {"a":0}, "merges": ["a"]})", {"two tokens"});
  refused(R"({"vocab": {"a":0}, "merges": ["a a a"]})", {"two tokens"});
  refused(R"({"vocab": {"a":0}, "merges": [["a"]]})", {"1 parts"});
  refused(R"({"vocab": {"a":0,"b":0}, "merges": []})", {"id 0", "'a'", "'b'"});
  refused(R"({"vocab": {"a":-1}, "merges": []})", {"-1"});
  refused(R"({"vocab": {"a":2147483648}, "merges": []})", {"2147483648"});
  refused(R"({"vocab": {"a":1.5}, "merges": []})", {"1.5"});
  refused(R"({"vocab": [], "merges": []})", {"'model.vocab'"});
  refused(R"({"vocab": {}})", {"'merges'"});
  refused(R"({"vocab": {}, "merges": [], "dropout": 0.1})", {"dropout"}, ErrorCode::kUnsupported);
  EXPECT_NO_THROW(make_bpe(R"({"vocab": {"a":0}, "merges": ["#version: 0.2"], "dropout": 0.0})"));
}

}  // namespace
}  // namespace moeweld::tokenizer
