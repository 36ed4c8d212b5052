#include <gtest/gtest.h>

#include "moeweld/config/merge_config.h"
#include "unit/config/read_config.h"

namespace moeweld::config {
namespace {

MoeConfig read_moe(const std::string& text) { return std::get<MoeConfig>(read_config(text).job); }

/// `rest` begins on line 6.
std::string moe(const std::string& rest = "gate_mode: random\n") {
  return "base_model: base\nexperts:\n  - source_model: a\n    negative_prompts: []\n  - source_model: b\n" + rest;
}

std::string embed(const std::string& first, const std::string& second) {
  return "base_model: base\ngate_mode: cheap_embed\nexperts:\n  - {source_model: a, " + first + "}\n  - {source_model: b, " + second +
         "}\n";
}

TEST(MoeConfig, ReadsExperts) {
  const MoeConfig config =
      read_moe(moe("gate_mode: random\nexperts_per_token: 1\narchitecture: Mixtral\ndtype: bfloat16\nlayout: fused\nshared_experts: "
                   "[]\nrope: keep\nmoe_layers: all\n"));
  EXPECT_EQ(config.base_model.path, "base");
  ASSERT_EQ(config.experts.size(), 2u);
  EXPECT_EQ(config.experts[1].source_model.path, "b");
  EXPECT_EQ(config.experts[1].line, 5);
  EXPECT_EQ(config.gate_mode, GateMode::kRandom);
  EXPECT_EQ(config.gate_mode_line, 6);
  EXPECT_EQ(config.experts_per_token, 1u);
  EXPECT_EQ(config.architecture, "Mixtral");
  EXPECT_EQ(config.dtype, DType::kBF16);
  EXPECT_EQ(config.layout, Layout::kFused);
}

TEST(MoeConfig, TwoExpertsPerTokenUnlessSaid) {
  EXPECT_EQ(read_moe(moe()).experts_per_token, 2u);
  EXPECT_FALSE(read_moe(moe("gate_mode: uniform_random\nlayout: ~\n")).layout);
}

TEST(MoeConfig, ReadsTokenIds) {
  const MoeConfig config = read_moe(embed("positive_token_ids: [[1, 2], [3]], negative_token_ids: [[4]]", "positive_token_ids: [[5]]"));
  EXPECT_EQ(config.experts[0].positive_token_ids, (std::vector<std::vector<std::int64_t>>{{1, 2}, {3}}));
  EXPECT_EQ(config.experts[0].negative_token_ids, (std::vector<std::vector<std::int64_t>>{{4}}));
  EXPECT_FALSE(config.identical_prompts);
}

TEST(MoeConfig, MarksExpertsWithTheSamePrompts) {
  EXPECT_TRUE(read_moe(embed("positive_token_ids: [[1, 2]]", "positive_token_ids: [[1, 2]]")).identical_prompts);
}

TEST(MoeConfig, NeutralScalesAreAccepted) {
  EXPECT_NO_THROW(read_moe(moe("    noise_scale: 0\n    residual_scale: 1.0\ngate_mode: random\n")));
}

TEST(MoeConfig, NotesAName) { EXPECT_EQ(read_config(moe("gate_mode: random\nname: mine\n")).notes.size(), 1u); }

TEST(MoeConfig, RefusesNoBaseModel) {
  expect_refused("experts: [{source_model: a}, {source_model: b}]\ngate_mode: random\n", 1, {"'base_model' is missing"});
}
TEST(MoeConfig, RefusesNoExperts) {
  expect_refused("base_model: a\ngate_mode: random\n", 1, {"'experts' is missing"});
  expect_refused("base_model: a\ngate_mode: random\nexperts: []\n", 3, {"'experts' must be a list"});
}
TEST(MoeConfig, RefusesAnExpertWithoutASource) {
  expect_refused("base_model: a\ngate_mode: random\nexperts:\n  - source_model: a\n  - positive_prompts: [x]\n", 5, {"no 'source_model'"});
}
TEST(MoeConfig, RefusesAnUnknownGateMode) { expect_refused(moe("gate_mode: randon\n"), 6, {"'randon'", "Did you mean 'random'"}); }
TEST(MoeConfig, RefusesGateModesOfALaterVersion) {
  expect_unsupported(moe("gate_mode: orthogonal\n"), 6, {"orthogonal", "later version"});
  const std::string prompts =
      "base_model: base\nexperts:\n  - {source_model: a, positive_prompts: [x]}\n  - {source_model: b, positive_prompts: [y]}\n";
  for (const char* mode : {"hidden", "hidden_last", "hidden_avg", "router_input"}) {
    expect_unsupported(prompts + "gate_mode: " + mode + "\n", 5, {mode, "later version"});
  }
  expect_unsupported(prompts, 3, {"no 'gate_mode'", "hidden"});
}
TEST(MoeConfig, RefusesCheapEmbedByTexts) {
  expect_unsupported(embed("positive_prompts: [x]", "positive_prompts: [y]"), 2, {"cheap_embed by prompts", "positive_token_ids"});
}
TEST(MoeConfig, RefusesAnExpertWithoutPromptsWhereTheGateNeedsThem) {
  expect_refused(embed("positive_token_ids: [[1]]", "negative_token_ids: [[1]]"), 5, {"neither positive_prompts nor positive_token_ids"});
}
TEST(MoeConfig, RefusesTokenIdsOfTheWrongForm) {
  for (const char* ids : {"[]", "3", "[1, 2]", "[[]]", "{a: 1}"}) {
    expect_error([&] { read_config(embed(std::string("positive_token_ids: ") + ids, "positive_token_ids: [[1]]")); },
                 ErrorCode::kInvalidConfig, {"merge.yaml:4", "list of lists of token ids"});
  }
  expect_refused(embed("positive_token_ids: [[-1]]", "positive_token_ids: [[1]]"), 4, {"a token id must be a whole number from 0", "'-1'"});
}
TEST(MoeConfig, RefusesPromptsThatAreNoList) {
  expect_refused(moe("    positive_prompts: x\ngate_mode: random\n"), 6, {"positive_prompts must be a list"});
}
TEST(MoeConfig, RefusesMoreExpertsPerTokenThanThereAre) {
  expect_refused(moe("gate_mode: random\nexperts_per_token: 3\n"), 7, {"experts_per_token is 3", "only 2 experts"});
  expect_refused(moe("gate_mode: random\nexperts_per_token: 0\n"), 7, {"whole number from 1"});
}
TEST(MoeConfig, RefusesAnUnknownLayout) {
  expect_refused(moe("gate_mode: random\nlayout: stacked\n"), 7, {"per_expert or fused", "'stacked'"});
}
TEST(MoeConfig, RefusesArchitectures) {
  expect_unsupported(moe("gate_mode: random\narchitecture: qwen3_moe\n"), 7, {"qwen3_moe", "later version"});
  expect_refused(moe("gate_mode: random\narchitecture: mixtrall\n"), 7, {"unknown architecture 'mixtrall'"});
}
TEST(MoeConfig, RefusesKeysOfALaterVersionByName) {
  for (const char* entry :
       {"shared_experts: [{source_model: a}]", "shared_experts: a", "rope: scale", "moe_layers: [1]", "copies: 4", "ratio: 2"}) {
    const std::string text = entry;
    expect_unsupported(moe("gate_mode: random\n" + text + "\n"), 7, {"'" + text.substr(0, text.find(':')) + "'", "later version"});
  }
  expect_unsupported(moe("    noise_scale: 0.1\ngate_mode: random\n"), 6, {"'noise_scale'"});
  expect_unsupported(moe("    residual_scale: 0.5\ngate_mode: random\n"), 6, {"'residual_scale'"});
}
TEST(MoeConfig, RefusesAScaleThatIsNoNumber) {
  expect_refused(moe("    noise_scale: much\ngate_mode: random\n"), 6, {"noise_scale must be a finite number"});
}
TEST(MoeConfig, RefusesUnknownKeys) {
  expect_refused(moe("gate_mode: random\nexpert_per_token: 2\n"), 7, {"'expert_per_token'", "Did you mean 'experts_per_token'"});
  expect_refused(moe("    source_modle: c\ngate_mode: random\n"), 6, {"'source_modle'", "in an expert", "Did you mean 'source_model'"});
  expect_refused(moe("gate_mode: random\nmerge_method: linear\n"), 7, {"'merge_method'"});
}
TEST(MoeConfig, RefusesAnUnknownDtype) { expect_refused(moe("gate_mode: random\ndtype: bf17\n"), 7, {"unknown dtype 'bf17'"}); }

}  // namespace
}  // namespace moeweld::config
