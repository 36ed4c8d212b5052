#include <gtest/gtest.h>

#include <string>

#include "moeweld/storage/storage.h"
#include "moeweld/tokenizer/tokenizer.h"
#include "unit/expect_error.h"
#include "unit/temporary_directory.h"
#include "unit/tokenizer/component.h"
#include "unit/tokenizer/piece_model.h"

namespace moeweld::tokenizer {
namespace {

const std::string kJson = tokenizer_json(R"({"type": "BPE", "vocab": {"a": 0, "<s>": 1, "</s>": 2, "<x>": 3}, "merges": []})");

class LoadTokenizer : public ::testing::Test {
 protected:
  std::shared_ptr<const Tokenizer> load() { return load_tokenizer(*storage_, directory_.path()); }
  void expect_refused(ErrorCode code, std::initializer_list<std::string> parts) {
    expect_error([&] { load(); }, code, parts);
  }
  TemporaryDirectory directory_;
  std::shared_ptr<Storage> storage_ = make_posix_storage();
};

TEST_F(LoadTokenizer, TokenizerJsonWinsOverTokenizerModel) {
  directory_.write("tokenizer.model", piece_model());
  EXPECT_EQ(load()->token_to_id("b"), kPieceB);
  directory_.write("tokenizer.json", kJson);
  EXPECT_EQ(load()->token_to_id("b"), std::nullopt);
  EXPECT_EQ(load()->token_to_id("a"), 0);
  directory_.write("tokenizer.model", "damaged, but not read");
  EXPECT_EQ(load()->token_to_id("a"), 0);
}

TEST_F(LoadTokenizer, TokenizerConfigNamesBeginAndEnd) {
  directory_.write("tokenizer.json", kJson);
  EXPECT_EQ(load()->bos_id(), std::nullopt);
  EXPECT_EQ(load()->encode_with_bos("a"), Ids{0});
  directory_.write("special_tokens_map.json", R"({"bos_token": "<x>", "eos_token": {"content": "</s>", "lstrip": false}})");
  EXPECT_EQ(load()->bos_id(), 3);
  EXPECT_EQ(load()->eos_id(), 2);
  directory_.write("tokenizer_config.json", R"({"bos_token": {"content": "<s>"}})");
  EXPECT_EQ(load()->bos_id(), 1);
  EXPECT_EQ(load()->eos_id(), 2);
  EXPECT_EQ(load()->encode_with_bos("a"), (Ids{1, 0}));
  directory_.write("tokenizer_config.json", R"({"bos_token": null})");
  EXPECT_EQ(load()->bos_id(), std::nullopt);
}

TEST_F(LoadTokenizer, AClassHasItsOwnWhereNoFileNamesThem) {
  directory_.write("tokenizer.json", kJson);
  directory_.write("tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizerFast"})");
  EXPECT_EQ(load()->bos_id(), 1);
  EXPECT_EQ(load()->eos_id(), 2);
  directory_.write("tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizerFast", "bos_token": null})");
  EXPECT_EQ(load()->bos_id(), std::nullopt);
  directory_.write("tokenizer_config.json", R"({"tokenizer_class": "GPT2Tokenizer"})");  // its <|endoftext|> is not in the vocabulary
  EXPECT_EQ(load()->bos_id(), std::nullopt);
}

TEST_F(LoadTokenizer, ATokenThatTheVocabularyHasNotIsRefusedByTheFileThatNamesIt) {
  directory_.write("tokenizer.json", kJson);
  directory_.write("special_tokens_map.json", R"({"bos_token": "<begin>"})");
  expect_refused(ErrorCode::kInvalidInput, {"special_tokens_map.json", "'<begin>'"});
  directory_.write("tokenizer_config.json", R"({"bos_token": "<start>"})");
  expect_refused(ErrorCode::kInvalidInput, {"tokenizer_config.json", "'<start>'"});
}

TEST_F(LoadTokenizer, TokenizerModelTakesAddedTokensFromTheFilesBesideIt) {
  directory_.write("tokenizer.model", piece_model());
  directory_.write("added_tokens.json", R"({"<x>": 8})");
  EXPECT_EQ(load()->encode("<x>ab"), (Ids{8, kPieceMarkAb}));
  directory_.write("tokenizer_config.json", R"({"legacy": false, "added_tokens_decoder": {"8": {"content": "<y>"}, "9": {"content": "<z>"}},
                                                "additional_special_tokens": ["<y>", {"content": "<w>"}]})");
  EXPECT_EQ(load()->token_to_id("<x>"), std::nullopt);
  EXPECT_EQ(load()->encode("<y>ab"), (Ids{8, kPieceAb}));
  EXPECT_EQ(load()->encode("<z>ab"), (Ids{kPieceMark, 9, kPieceAb}));
  directory_.write("tokenizer_config.json", R"({"additional_special_tokens": [1]})");
  expect_refused(ErrorCode::kInvalidInput, {"tokenizer_config.json", "additional_special_tokens"});
}

TEST_F(LoadTokenizer, DamagedFilesAreNamed) {
  directory_.write("tokenizer.json", "{");
  expect_refused(ErrorCode::kInvalidInput, {"tokenizer.json"});
  directory_.write("tokenizer.json", kJson);
  directory_.write("tokenizer_config.json", "[1]");
  expect_refused(ErrorCode::kInvalidInput, {"tokenizer_config.json"});
  directory_.write("tokenizer_config.json", R"({"bos_token": 1})");
  expect_refused(ErrorCode::kInvalidInput, {"tokenizer_config.json", "bos_token"});
  directory_.write("tokenizer_config.json", R"({"added_tokens_decoder": {"x": {"content": "a"}}})");
  expect_refused(ErrorCode::kInvalidInput, {"tokenizer_config.json", "'x'"});
}

TEST_F(LoadTokenizer, AModelWithoutOneIsToldSo) {
  expect_refused(ErrorCode::kInvalidInput, {directory_.path(), "neither tokenizer.json nor tokenizer.model", "token ids"});
  directory_.write("tekken.json", "{}");
  expect_refused(ErrorCode::kUnsupported, {directory_.path(), "'tekken.json' is not read", "save_pretrained"});
  expect_error([&] { load_tokenizer(*storage_, directory_ / "nowhere"); }, ErrorCode::kInvalidInput,
               {"nowhere", "no such model directory"});
}

}  // namespace
}  // namespace moeweld::tokenizer
