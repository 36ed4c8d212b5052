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
  EXPECT_EQ(config.line_of("gate_mode"), 6);
  EXPECT_EQ(config.experts_per_token, 1u);
  EXPECT_EQ(config.architecture, "mixtral");
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
TEST(MoeConfig, EveryGateModeHasItsName) {
  EXPECT_EQ(read_moe(moe("gate_mode: orthogonal\n")).gate_mode, GateMode::kOrthogonal);
  const std::string prompts =
      "base_model: base\nexperts:\n  - {source_model: a, positive_prompts: [x]}\n  - {source_model: b, positive_prompts: [y]}\n";
  const std::pair<const char*, GateMode> modes[] = {{"hidden", GateMode::kHidden},
                                                    {"hidden_last", GateMode::kHidden},
                                                    {"hidden_avg", GateMode::kHiddenAverage},
                                                    {"router_input", GateMode::kRouterInput},
                                                    {"cheap_embed", GateMode::kCheapEmbed}};
  for (const auto& [name, mode] : modes) EXPECT_EQ(read_moe(prompts + "gate_mode: " + name + "\n").gate_mode, mode) << name;
  EXPECT_EQ(read_moe(prompts).gate_mode, GateMode::kHidden);
}
TEST(MoeConfig, TheDefaultGateNeedsPrompts) {
  expect_refused("base_model: base\nexperts_per_token: 1\nexperts:\n  - source_model: a\n", 4,
                 {"neither positive_prompts nor positive_token_ids"});
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
TEST(MoeConfig, AnExpertOfAMixtureIsOneIndexOrOneForEachLayer) {
  const MoeConfig config = read_moe(
      "base_model: b\ngate_mode: random\nexperts:\n  - {source_model: a, expert: 3}\n  - {source_model: a, expert: [0, 2]}\n  - "
      "source_model: c\n");
  EXPECT_EQ(config.experts[0].expert, (std::vector<std::uint32_t>{3}));
  EXPECT_EQ(config.experts[1].expert, (std::vector<std::uint32_t>{0, 2}));
  EXPECT_TRUE(config.experts[2].expert.empty());
  for (const char* index : {"-1", "first", "[]", "[0, x]", "1.5"}) {
    expect_error(
        [&] { read_config("base_model: b\ngate_mode: random\nexperts:\n  - {source_model: a, expert: " + std::string(index) + "}\n"); },
        ErrorCode::kInvalidConfig, {"merge.yaml:4", "expert"});
  }
}
TEST(MoeConfig, RefusesNoExpertsPerToken) { expect_refused(moe("gate_mode: random\nexperts_per_token: 0\n"), 7, {"whole number from 1"}); }
TEST(MoeConfig, RefusesAnUnknownLayout) {
  expect_refused(moe("gate_mode: random\nlayout: stacked\n"), 7, {"per_expert or fused", "'stacked'"});
}
TEST(MoeConfig, AnArchitectureIsAPrefixOfANameInAnyCase) {
  const std::pair<const char*, const char*> cases[] = {
      {"m", "mixtral"},           {"Mixtral", "mixtral"},    {"DeepSeek MoE", "deepseek"},    {"deep", "deepseek"},
      {"qwen", "qwen2_moe"},      {"QWEN MOE", "qwen2_moe"}, {"qwen2_moe", "qwen2_moe"},      {"qwen3", "qwen3_moe"},
      {"qwen3_moe", "qwen3_moe"}, {"deepseek", "deepseek"},  {"Granite", "granitemoeshared"},
  };
  for (const auto& [written, family] : cases) {
    EXPECT_EQ(read_moe(moe(std::string("gate_mode: random\narchitecture: ") + written + "\n")).architecture, family) << written;
  }
}
TEST(MoeConfig, RefusesUnknownArchitectures) {
  expect_refused(moe("gate_mode: random\narchitecture: mixtrall\n"), 7, {"unknown architecture 'mixtrall'", "Did you mean 'mixtral'"});
  expect_refused(moe("gate_mode: random\narchitecture: ''\n"), 7, {"unknown architecture ''"});
}

TEST(MoeConfig, ReadsScalesAndSharedExperts) {
  const MoeConfig config =
      read_moe(moe("    noise_scale: 0.1\n    residual_scale: -0.5\ngate_mode: random\nshared_experts:\n"
                   "  - {source_model: c, positive_prompts: [x]}\n  - {source_model: d, noise_scale: 2}\n"));
  EXPECT_FALSE(config.experts[0].noise_scale);
  EXPECT_EQ(config.experts[1].noise_scale, 0.1);
  EXPECT_EQ(config.experts[1].residual_scale, -0.5);
  ASSERT_EQ(config.shared_experts.size(), 2u);
  EXPECT_EQ(config.shared_experts[0].positive_prompts, std::vector<std::string>{"x"});
  EXPECT_EQ(config.shared_experts[1].noise_scale, 2);
  EXPECT_EQ(config.shared_experts[1].line, 11);
}
TEST(MoeConfig, RefusesSharedExpertsOfTheWrongForm) {
  expect_refused(moe("gate_mode: random\nshared_experts: a\n"), 7, {"'shared_experts' must be a list"});
  expect_refused(moe("gate_mode: random\nshared_experts:\n  - {noise_scale: 1}\n"), 8, {"a shared expert has no 'source_model'"});
}

TEST(MoeConfig, ReadsRope) {
  EXPECT_EQ(read_moe(moe()).rope, RopeChoice::kKeep);
  EXPECT_EQ(read_moe(moe("gate_mode: random\nrope: fold_theta\n")).rope, RopeChoice::kFoldTheta);
  EXPECT_EQ(read_moe(moe("gate_mode: random\nrope: ntk\n")).rope, RopeChoice::kNtk);
  expect_refused(moe("gate_mode: random\nrope: scale\n"), 7, {"rope must be keep, fold_theta or ntk", "'scale'"});
}

TEST(MoeConfig, ReadsWhichLayersBecomeSparse) {
  EXPECT_EQ(read_moe(moe()).moe_layers.kind, MoeLayers::Kind::kAll);
  const MoeLayers every = read_moe(moe("gate_mode: random\nmoe_layers: {every: 2, first: 1}\n")).moe_layers;
  EXPECT_EQ(every.kind, MoeLayers::Kind::kEvery);
  EXPECT_EQ(every.every, 2u);
  EXPECT_EQ(every.first, 1u);
  EXPECT_EQ(read_moe(moe("gate_mode: random\nmoe_layers: {every: 3}\n")).moe_layers.first, 0u);
  const MoeLayers list = read_moe(moe("gate_mode: random\nmoe_layers: [1, 3]\n")).moe_layers;
  EXPECT_EQ(list.kind, MoeLayers::Kind::kList);
  EXPECT_EQ(list.list, (std::vector<std::uint32_t>{1, 3}));
}
TEST(MoeConfig, RefusesMoeLayersOfTheWrongForm) {
  expect_refused(moe("gate_mode: random\nmoe_layers: some\n"), 7, {"moe_layers must be all"});
  expect_refused(moe("gate_mode: random\nmoe_layers: []\n"), 7, {"moe_layers must be all"});
  expect_refused(moe("gate_mode: random\nmoe_layers: {first: 1}\n"), 7, {"no 'every'"});
  expect_refused(moe("gate_mode: random\nmoe_layers: {every: 0}\n"), 7, {"every must be a whole number from 1"});
  expect_refused(moe("gate_mode: random\nmoe_layers: [-1]\n"), 7, {"a layer of moe_layers must be a whole number from 0"});
  expect_refused(moe("gate_mode: random\nmoe_layers: {every: 2, last: 1}\n"), 7, {"'last'"});
}

TEST(Recipe, ABaseAndARecipeAreEnoughAndGatesAreRandom) {
  const MoeConfig config = read_moe("base_model: base\nrecipe: sparse_upcycle\ncopies: 8\n");
  EXPECT_EQ(config.recipe.kind, RecipeKind::kSparseUpcycle);
  EXPECT_EQ(config.num_experts(), 8u);
  EXPECT_EQ(config.gate_mode, GateMode::kRandom);
  EXPECT_EQ(config.line_of("recipe"), 2);
  EXPECT_EQ(read_moe("base_model: base\nrecipe: sparse_upcycle\ncopies: 8\ngate_mode: uniform_random\n").gate_mode,
            GateMode::kUniformRandom);
}
TEST(Recipe, ReadsItsKeys) {
  const MoeConfig fine = read_moe("base_model: b\nrecipe: fine_grained\ncopies: 4\nshards: 8\npublished_scaling: true\n");
  EXPECT_EQ(fine.num_experts(), 32u);
  EXPECT_TRUE(fine.recipe.published_scaling);
  const MoeConfig drop = read_moe("base_model: b\nrecipe: drop_upcycle\ncopies: 4\n");
  EXPECT_EQ(drop.recipe.ratio, 0.5);
  EXPECT_EQ(read_moe("base_model: b\nrecipe: drop_upcycle\ncopies: 4\nratio: 0.25\n").recipe.ratio, 0.25);
  const std::string btx = "base_model: b\nexperts: [{source_model: x}, {source_model: y}]\nrecipe: btx\n";
  EXPECT_EQ(read_moe(btx).recipe.attention_method, "linear");
  EXPECT_EQ(read_moe(btx + "attention_merge: task_arithmetic\n").recipe.attention_method, "task_arithmetic");
  const MoeConfig parameters = read_moe(btx + "attention_merge: {merge_method: slerp, parameters: {t: 0.3}}\n");
  EXPECT_EQ(parameters.recipe.attention_method, "slerp");
  ASSERT_EQ(parameters.recipe.attention_parameters.size(), 1u);
  EXPECT_EQ(parameters.recipe.attention_parameters[0].name, "t");
}
TEST(Recipe, RefusesWhatDoesNotFitIt) {
  expect_refused("base_model: b\nrecipe: upcycle\ncopies: 2\n", 2, {"unknown recipe 'upcycle'", "drop_upcycle"});
  expect_refused("base_model: b\nrecipe: sparse_upcycle\n", 2, {"needs 'copies'"});
  expect_refused("base_model: b\nrecipe: fine_grained\ncopies: 2\n", 2, {"needs 'shards'"});
  expect_refused("base_model: b\nrecipe: btx\n", 2, {"btx", "'experts'"});
  expect_refused("base_model: b\nrecipe: sparse_upcycle\ncopies: 2\nratio: 0.5\n", 4,
                 {"'ratio' does not belong to the recipe sparse_upcycle"});
  expect_refused("base_model: b\nrecipe: drop_upcycle\ncopies: 2\nratio: 1.5\n", 4, {"ratio must be a number from 0 to 1"});
  expect_refused("base_model: b\nrecipe: sparse_upcycle\ncopies: 0\n", 3, {"copies must be a whole number from 1"});
  expect_refused(moe("gate_mode: random\ncopies: 4\n"), 7, {"'copies' belongs to a recipe"});
  expect_refused(moe("gate_mode: random\nattention_merge: linear\n"), 7, {"'attention_merge' belongs to a recipe"});
  expect_refused(moe("recipe: sparse_upcycle\ncopies: 4\n"), 7, {"4 'copies' and 2 'experts'"});
  expect_refused(moe("recipe: btx\nattention_merge: linaer\n"), 7, {"unknown merge method 'linaer'", "Did you mean 'linear'"});
  expect_refused(moe("recipe: btx\nattention_merge: {merge_method: slerp, parameters: {s: 1}}\n"), 7, {"'s'"});
  expect_unsupported(moe("recipe: btx\nattention_merge: ties\n"), 7, {"'ties' comes with a later version"});
  expect_refused("base_model: b\nrecipe: sparse_upcycle\ncopies: 2\nexperts_per_token: 3\n", 4,
                 {"experts_per_token is 3", "only 2 experts"});
  expect_refused("base_model: b\nrecipe: sparse_upcycle\ncopies: 2\ngate_mode: cheap_embed\n", 4, {"copies of the base have none"});
  expect_refused("base_model: b\nrecipe: fine_grained\ncopies: 2\nshards: 2\npublished_scaling: maybe\n", 5, {"true or false", "'maybe'"});
  expect_refused("base_model: b\nrecipe: fine_grained\ncopies: 65536\nshards: 65536\n", 4, {"4294967296 experts"});
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
