#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "unit/expect_error.h"
#include "unit/plan/tiny_models.h"

namespace moeweld::plan {
namespace {

using TokenIds = std::vector<std::vector<std::int64_t>>;

/// Letters a to d, one token each, and the token <s>, which `has_bos` makes the beginning of sequences.
void write_tokenizer(const Workshop& workshop, bool has_bos) {
  workshop.write_file("base/tokenizer.json", R"({
    "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null, "post_processor": null,
    "decoder": null,
    "added_tokens": [{"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                      "special": true}],
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
              "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
              "vocab": {"<s>": 0, "a": 1, "b": 2, "c": 3, "d": 4, "ab": 5}, "merges": [["a", "b"]]}})");
  workshop.write_file("base/tokenizer_config.json", has_bos ? R"({"bos_token": "<s>"})" : "{}");
}

class PromptTokens : public ::testing::Test {
 protected:
  PromptTokens() {
    for (const char* name : {"a", "b", "base"}) workshop_.write(name, {});
  }
  MergePlan plan(const std::string& first, const std::string& second, const std::string& gate = "cheap_embed") {
    return workshop_.plan("base_model: $/base\ngate_mode: " + gate + "\nexperts:\n  - {source_model: $/a, " + first +
                          "}\n  - {source_model: $/b, " + second + "}\n");
  }
  Workshop workshop_;
};

TEST_F(PromptTokens, TheBeginningOfSequenceThenTheText) {
  write_tokenizer(workshop_, true);
  const MergePlan plan = this->plan("positive_prompts: [cab, d], negative_prompts: [a]", "positive_prompts: [b]");
  EXPECT_EQ(plan.slots.at(0).positive_ids.at(0), (TokenIds{{0, 3, 5}, {0, 4}}));
  EXPECT_EQ(plan.slots.at(0).negative_ids.at(0), (TokenIds{{0, 1}}));
  EXPECT_EQ(plan.slots.at(0).positive_ids.at(1), (TokenIds{{0, 2}}));
}

TEST_F(PromptTokens, NothingIsPutBeforeTextWithoutSuchAToken) {
  write_tokenizer(workshop_, false);
  EXPECT_EQ(plan("positive_prompts: [cab]", "positive_prompts: [b]").slots.at(0).positive_ids.at(0), (TokenIds{{3, 5}}));
}

// Also for each kind of an expert's prompts by itself.
TEST_F(PromptTokens, IdsAreUsedAsGiven) {
  write_tokenizer(workshop_, true);
  const MergePlan plan = this->plan("positive_token_ids: [[7]], positive_prompts: [a]", "positive_token_ids: [[8]], negative_prompts: [c]");
  EXPECT_EQ(plan.slots.at(0).positive_ids.at(0), (TokenIds{{7}}));
  EXPECT_EQ(plan.slots.at(0).positive_ids.at(1), (TokenIds{{8}}));
  EXPECT_EQ(plan.slots.at(0).negative_ids.at(1), (TokenIds{{0, 3}}));
}

TEST_F(PromptTokens, RefusesTextsThatTheTokenizerCannotTakeAtTheirExpertsLine) {
  write_tokenizer(workshop_, false);
  expect_error([&] { plan("positive_prompts: ['']", "positive_prompts: [b]"); }, ErrorCode::kInvalidConfig, {"merge.yml:4", "no token"});
}

TEST_F(PromptTokens, NeedsATokenizerOnlyForText) {
  expect_error([&] { plan("positive_prompts: [a]", "positive_prompts: [b]"); }, ErrorCode::kInvalidInput, {workshop_.path("base")});
  EXPECT_NO_THROW(plan("positive_token_ids: [[1]]", "positive_token_ids: [[2]]"));
  EXPECT_NO_THROW(plan("positive_prompts: [a]", "positive_prompts: [b]", "random"));
}

}  // namespace
}  // namespace moeweld::plan
