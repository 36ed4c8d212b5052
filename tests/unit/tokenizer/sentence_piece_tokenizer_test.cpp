#include "tokenizer/sentence_piece_tokenizer.h"

#include <gtest/gtest.h>

#include "unit/expect_error.h"
#include "unit/tokenizer/component.h"
#include "unit/tokenizer/piece_model.h"

namespace moeweld::tokenizer {
namespace {

// Expected values: transformers' documentation of LlamaTokenizer's `legacy`, by hand on the eight pieces of piece_model.h.

std::shared_ptr<const Tokenizer> make(const SpecialTokens& special = {}) {
  return make_sentence_piece_tokenizer(piece_model(), "tokenizer.model", special);
}
SpecialTokens with_tokens(std::map<std::int64_t, AddedToken> tokens, bool legacy = true) {
  SpecialTokens special;
  special.added_tokens = std::move(tokens);
  special.legacy = legacy;
  return special;
}

TEST(SentencePieceTokenizer, MergesByScoreBehindAMark) {
  EXPECT_EQ(make()->encode("ab ab"), (Ids{kPieceMarkAb, kPieceMarkAb}));
  EXPECT_EQ(make()->encode("ba"), (Ids{kPieceMark, kPieceB, kPieceA}));
  EXPECT_EQ(make()->encode("c"), (Ids{kPieceMark, 0}));
  EXPECT_EQ(make()->encode(""), Ids{});
  EXPECT_EQ(make()->vocabulary_size(), 8U);
  EXPECT_EQ(make()->id_limit(), 8);
  EXPECT_EQ(make()->id_to_token(kPieceMarkAb),
            "\xe2\x96\x81"
            "ab");
  EXPECT_EQ(make()->id_to_token(8), std::nullopt);
}

TEST(SentencePieceTokenizer, BeginAndEndAreTheModelsUnlessAFileNamesOthers) {
  EXPECT_EQ(make()->bos_id(), 1);
  EXPECT_EQ(make()->eos_id(), 2);
  EXPECT_EQ(make()->encode_with_bos("ab"), (Ids{1, kPieceMarkAb}));
  SpecialTokens special;
  special.bos = std::optional<std::string>("</s>");
  special.eos = std::optional<std::string>();
  EXPECT_EQ(make(special)->bos_id(), 2);
  EXPECT_EQ(make(special)->eos_id(), std::nullopt);
  special.bos = std::optional<std::string>("<begin>");
  special.bos_path = "tokenizer_config.json";
  expect_error([&] { make(special); }, ErrorCode::kInvalidInput, {"tokenizer_config.json", "'<begin>'"});
}

TEST(SentencePieceTokenizer, AddedTokensAreCutOutFirst) {
  const auto tokenizer = make(with_tokens({{8, {.content = "<tool>"}}, {9, {.content = "b<", .special = true}}}));
  EXPECT_EQ(tokenizer->encode("ab<tool>"), (Ids{kPieceMark, kPieceA, 9, kPieceMark, 0}));  // the leftmost: "b<", then "tool>"
  EXPECT_EQ(tokenizer->encode("a<tool>ab"), (Ids{kPieceMark, kPieceA, 8, kPieceMarkAb}));
  EXPECT_EQ(tokenizer->encode("<s>ab <s>"),
            (Ids{1, kPieceMarkAb, kPieceMark, 1}));  // control pieces, which SentencePiece itself takes for text
  EXPECT_EQ(tokenizer->vocabulary_size(), 10U);
  EXPECT_EQ(tokenizer->id_limit(), 10);
  EXPECT_EQ(tokenizer->token_to_id("<tool>"), 8);
  EXPECT_EQ(tokenizer->id_to_token(9), "b<");
}

// Behind a token there is no mark, and a space is one mark, not two.
TEST(SentencePieceTokenizer, LegacyFalsePutsAMarkBeforeTheTextAlone) {
  const auto legacy = make(with_tokens({}, true));
  const auto corrected = make(with_tokens({}, false));
  for (const char* text : {"ab", "ab ab", "ba", " ab"}) EXPECT_EQ(corrected->encode(text).front(), legacy->encode(text).front()) << text;
  EXPECT_EQ(legacy->encode("ab<s>ab"), (Ids{kPieceMarkAb, 1, kPieceMarkAb}));
  EXPECT_EQ(corrected->encode("ab<s>ab"), (Ids{kPieceMarkAb, 1, kPieceAb}));
  EXPECT_EQ(legacy->encode("ab<s> ab"), (Ids{kPieceMarkAb, 1, kPieceMark, kPieceMarkAb}));
  EXPECT_EQ(corrected->encode("ab<s> ab"), (Ids{kPieceMarkAb, 1, kPieceMarkAb}));
  EXPECT_EQ(corrected->encode("<s>ab"), (Ids{1, kPieceAb}));  // no lone mark before a special token
  EXPECT_EQ(corrected->encode(""), Ids{});
}

// Which token is special is what bos_token, additional_special_tokens and the like name: the flag alone plays no part in it.
TEST(SentencePieceTokenizer, TheLoneMarkStaysBeforeATokenThatNoFileNamesAsSpecial) {
  SpecialTokens special = with_tokens({{8, {.content = "<x>", .special = true}}, {9, {.content = "<y>"}}}, false);
  special.named = {"<y>"};
  EXPECT_EQ(make(special)->encode("<x>a"), (Ids{kPieceMark, 8, kPieceA}));
  EXPECT_EQ(make(special)->encode("<y>a"), (Ids{9, kPieceA}));
}

TEST(SentencePieceTokenizer, DamageAndContradictionsAreRefused) {
  for (const std::string& bytes : {std::string(), std::string("aGVsbG8= 0\n"), piece_model().substr(0, 40)})
    expect_error([&] { make_sentence_piece_tokenizer(bytes, "dir/tokenizer.model", {}); }, ErrorCode::kInvalidInput,
                 {"dir/tokenizer.model", "no SentencePiece model"});
  expect_error([] { make(with_tokens({{9, {.content = "ab"}}})); }, ErrorCode::kInvalidInput, {"'ab'", "id 6", "id 9"});
  EXPECT_NO_THROW(make(with_tokens({{6, {.content = "ab"}}})));
  expect_error([] { make()->encode("a\xff"); }, ErrorCode::kInvalidInput, {"not valid UTF-8 at byte 1"});
}

}  // namespace
}  // namespace moeweld::tokenizer
