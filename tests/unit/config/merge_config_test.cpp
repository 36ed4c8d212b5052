#include "moeweld/config/merge_config.h"

#include <gtest/gtest.h>

#include "unit/config/read_config.h"

namespace moeweld::config {
namespace {

MergeConfig read_merge(const std::string& text) { return std::get<MergeConfig>(read_config(text).job); }

const std::string kModels =
    "merge_method: linear\nmodels:\n  - model: a\n    parameters: {weight: 1}\n  - model: b\n    parameters: {weight: 1}\n";

std::string with_weight(const std::string& value) {
  return "merge_method: linear\nmodels:\n  - model: a\n    parameters:\n      weight: " + value + "\n";
}

TEST(MergeConfig, ReadsModelsAsOneWholeModule) {
  const MergeConfig config = read_merge(
      "merge_method: task_arithmetic\nbase_model: base\nmodels:\n  - model: a@v1\n    parameters: {weight: 0.5}\n  - model: base\n"
      "parameters: {lambda: 2}\ndtype: bfloat16\nout_dtype: float32\n");
  EXPECT_EQ(config.merge_method, "task_arithmetic");
  EXPECT_EQ(config.base_model, (ModelReference{.path = "base"}));
  EXPECT_EQ(config.base_model_line, 2);
  EXPECT_TRUE(config.is_whole_model);
  ASSERT_EQ(config.modules.size(), 1u);
  EXPECT_EQ(config.modules[0].name, "default");
  ASSERT_EQ(config.modules[0].models.size(), 2u);
  EXPECT_EQ(config.modules[0].models[0].line, 4);
  EXPECT_EQ(evaluate(*find(config.modules[0].models[0].parameters, "weight"), "x", 0), Scalar{0.5});
  EXPECT_EQ(evaluate(*find(config.parameters, "lambda"), "x", 0), Scalar{2.0});
  EXPECT_EQ(config.dtype, DType::kBF16);
  EXPECT_EQ(config.out_dtype, DType::kF32);
  EXPECT_EQ(config.referenced_models(), (std::vector<ModelReference>{{.path = "base"}, {.path = "a", .revision = "v1"}}));
}

TEST(MergeConfig, ReadsAlignExperts) {
  using Match = AlignExperts::Match;
  EXPECT_FALSE(read_merge(kModels).align_experts);
  EXPECT_FALSE(read_merge(kModels + "align_experts: false\n").align_experts);
  const auto plain = read_merge(kModels + "align_experts: true\n").align_experts;
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->match, Match::kBoth);
  EXPECT_TRUE(plain->neurons);
  const auto chosen = read_merge(kModels + "align_experts: {match: router, neurons: false}\n").align_experts;
  ASSERT_TRUE(chosen);
  EXPECT_EQ(chosen->match, Match::kRouter);
  EXPECT_FALSE(chosen->neurons);
  EXPECT_EQ(read_merge(kModels + "align_experts:\n  match: weights\n").align_experts->match, Match::kWeights);
  EXPECT_EQ(read_merge(kModels + "align_experts: {match: both}\n").align_experts->match, Match::kBoth);
  expect_refused(kModels + "align_experts: maybe\n", 7, {"align_experts", "true or false", "maybe"});
  expect_refused(kModels + "align_experts: [router]\n", 7, {"align_experts", "true or false"});
  expect_refused(kModels + "align_experts:\n  match: names\n", 8, {"names", "router, weights or both"});
  expect_refused(kModels + "align_experts:\n  neurons: 7\n", 8, {"neurons", "true or false"});
  expect_refused(kModels + "align_experts:\n  neuron: true\n", 8, {"neuron", "neurons"});
}

TEST(MergeConfig, ReadsSlices) {
  const MergeConfig config = read_merge(
      "merge_method: slerp\nslices:\n  - sources:\n      - model: a\n        layer_range: [0, 8]\n      - {model: b, layer_range: [4, "
      "12]}\n"
      "    base_model: c\n    parameters: {t: [0, 1]}\n    residual_weight: 1\n");
  const OutputSlice& slice = config.modules.at(0).slices.at(0);
  ASSERT_EQ(slice.sources.size(), 2u);
  EXPECT_EQ(slice.sources[1].first_layer, 4u);
  EXPECT_EQ(slice.sources[1].end_layer, 12u);
  EXPECT_EQ(slice.base_model, (ModelReference{.path = "c"}));
  EXPECT_TRUE(find(slice.parameters, "t")->conditions.at(0).is_gradient);
  EXPECT_EQ(config.referenced_models().size(), 3u) << "a slice's base model has to be opened too";
}

TEST(MergeConfig, ReadsModules) {
  const MergeConfig config = read_merge(
      "merge_method: linear\nmodules:\n  text:\n    models: [{model: a}]\n    parameters: {weight: 3}\n  vision:\n    models: [{model: "
      "b}]\n");
  EXPECT_FALSE(config.is_whole_model);
  ASSERT_EQ(config.modules.size(), 2u);
  EXPECT_EQ(config.modules[0].name, "text");
  EXPECT_EQ(config.modules[1].line, 7);
}

TEST(MergeConfig, ReadsFiltersInEveryForm) {
  const auto weight = [](const std::string& value) {
    const MergeConfig config = read_merge(with_weight(value));
    return find(config.modules.at(0).models.at(0).parameters, "weight")->conditions;
  };
  EXPECT_EQ(weight("[{filter: mlp, value: 0.5}, {value: 1}]").size(), 2u);
  EXPECT_EQ(weight("[{filter: mlp, value: 0.5}, {value: 1}]")[0].filter, "mlp");
  EXPECT_FALSE(weight("[{filter: mlp, value: 0.5}, {value: 1}]")[1].filter);
  const auto one = weight("{filter: mlp, value: [0, 0.5, 1]}");
  ASSERT_EQ(one.size(), 1u);
  EXPECT_TRUE(one[0].is_gradient);
  EXPECT_EQ(one[0].gradient.size(), 3u);
  EXPECT_EQ(weight("1e-5")[0].gradient[0], Scalar{1e-5});
  EXPECT_EQ(weight("yes")[0].gradient[0], Scalar{true});
}

TEST(MergeConfig, ReadsAModelAsAMapping) {
  const MergeConfig config = read_merge(
      "merge_method: linear\nmodels:\n  - model: {model: {path: a+b, revision: v1}, override_architecture: LlamaForCausalLM}\n  - model: "
      "{model: c@v2}\n");
  EXPECT_EQ(config.modules[0].models[0].model,
            (ModelReference{.path = "a+b", .revision = "v1", .override_architecture = "LlamaForCausalLM"}));
  EXPECT_EQ(config.modules[0].models[1].model, (ModelReference{.path = "c", .revision = "v2"}));
}

TEST(MergeConfig, MergeKeysGiveWayToOwnKeysAndEarlierSourcesWin) {
  const MergeConfig config = read_merge(
      "merge_method: linear\nparameters: &p {weight: 1, normalize: false}\nmodels:\n  - model: a\n    parameters: &q {weight: 2}\n"
      "  - model: b\n    parameters: {<<: [*q, *p]}\n  - model: c\n    parameters: {<<: *p, weight: 5}\n");
  const auto weight = [&](std::size_t i) { return evaluate(*find(config.modules[0].models[i].parameters, "weight"), "x", 0); };
  EXPECT_EQ(weight(1), Scalar{2.0});
  EXPECT_EQ(config.modules[0].models[1].parameters.size(), 2u);
  EXPECT_EQ(weight(2), Scalar{5.0});
  EXPECT_EQ(evaluate(*find(config.modules[0].models[2].parameters, "normalize"), "x", 0), Scalar{false});
}

TEST(MergeConfig, ReadsTokenizerAndChatTemplate) {
  const MergeConfig config =
      read_merge(kModels + "tokenizer: {source: base, pad_to_multiple_of: 64, tokens: {x: {source: a}}}\nchat_template: auto\n");
  EXPECT_EQ(config.tokenizer->source, TokenizerConfig::Source::kBase);
  EXPECT_EQ(config.tokenizer->pad_to_multiple_of, 64u);
  EXPECT_TRUE(config.tokenizer->has_token_rules);
  EXPECT_EQ(config.chat_template, "auto");
  EXPECT_EQ(config.chat_template_line, 8);
  EXPECT_EQ(read_merge(kModels + "tokenizer_source: a\n").tokenizer->model, (ModelReference{.path = "a"}));
}

TEST(MergeConfig, NotesWhatHasNoEffect) {
  const ConfigFile file = read_config(kModels + "name: mine\nparameters: {int8_mask: true, t: 0.5}\n");
  ASSERT_EQ(file.notes.size(), 3u);
  EXPECT_THAT(file.notes[0], testing::HasSubstr("line 7: 'name' has no effect"));
  EXPECT_THAT(file.notes[1], testing::HasSubstr("'int8_mask' has no effect on method 'linear'"));
}

TEST(MergeConfig, LenientWarnsOfUnknownKeysAndStillRefusesTheRest) {
  const ConfigFile file = read_config(kModels + "merge_metod: x\nparameters: {wieght: 1}\n", true);
  ASSERT_EQ(file.warnings.size(), 2u);
  EXPECT_THAT(file.warnings[0], testing::AllOf(testing::HasSubstr("merge.yaml:7"), testing::HasSubstr("--lenient")));
  expect_error([] { read_config(kModels + "dtype: int3\n", true); }, ErrorCode::kInvalidConfig, {"int3"});
}

TEST(MergeConfig, ReportsEveryProblemAtOnce) {
  try {
    read_config("merge_method: liner\nbase_modle: x\nmodels:\n  - parameters: {weight: high}\n");
    FAIL();
  } catch (const Error& error) {
    ASSERT_EQ(error.problems().size(), 4u) << error.what();
    EXPECT_EQ(error.problems()[0].line, 1);
    EXPECT_EQ(error.problems()[1].line, 2);
  }
}

TEST(MergeConfig, RefusesAListInPlaceOfAConfiguration) { expect_refused("- a\n- b\n", 1, {"must be a mapping"}); }
TEST(MergeConfig, RefusesNoMethod) { expect_refused("\nmodels: [{model: a}]\n", 2, {"'merge_method' is missing"}); }
TEST(MergeConfig, RefusesAnUnknownMethod) {
  expect_refused("models: [{model: a}]\nmerge_method: liner\n", 2, {"'liner'", "Did you mean 'linear'"});
}
TEST(MergeConfig, RefusesAMethodOfALaterVersion) {
  expect_unsupported("models: [{model: a}]\nmerge_method: ties\n", 2, {"'ties'", "later version"});
}
TEST(MergeConfig, RefusesAnUnknownKey) { expect_refused(kModels + "base_modle: a\n", 7, {"'base_modle'", "Did you mean 'base_model'"}); }
TEST(MergeConfig, RefusesAnUnknownParameter) {
  expect_refused(kModels + "parameters:\n  normalise: true\n", 8, {"'normalise'", "'linear'", "Did you mean 'normalize'"});
}
TEST(MergeConfig, RefusesNeitherModelsNorSlices) {
  expect_refused("merge_method: linear\n", 1, {"one of 'models', 'slices' and 'modules'"});
}
TEST(MergeConfig, RefusesModelsAndSlices) {
  expect_refused(kModels + "slices:\n  - sources: [{model: a, layer_range: [0, 1]}]\n", 8, {"only one of"});
}
TEST(MergeConfig, RefusesModelsThatAreNoList) {
  expect_refused("merge_method: linear\nmodels: a\n", 2, {"'models' must be a list"});
  expect_refused("merge_method: linear\nmodels: []\n", 2, {"a list of mappings, at least one"});
}
TEST(MergeConfig, RefusesAnEntryWithoutAModel) {
  expect_refused("merge_method: linear\nmodels:\n  - parameters: {weight: 1}\n", 3, {"has no 'model'"});
}
TEST(MergeConfig, RefusesAnEntryThatIsText) {
  expect_refused("merge_method: linear\nmodels:\n  - a\n", 3, {"an entry of 'models' must be a mapping"});
}
TEST(MergeConfig, RefusesSlicesWithoutSources) {
  expect_refused("merge_method: linear\nslices: {}\n", 2, {"'slices' must be a list"});
  expect_refused("merge_method: linear\nslices:\n  - parameters: {weight: 1}\n", 3, {"has no 'sources'"});
  expect_refused("merge_method: linear\nslices:\n  - sources: []\n", 3, {"'sources' must be a list"});
}
TEST(MergeConfig, RefusesASourceWithoutModelOrRange) {
  expect_refused("merge_method: linear\nslices:\n  - sources:\n    - layer_range: [0, 1]\n", 4, {"a source has no 'model'"});
  expect_refused("merge_method: linear\nslices:\n  - sources:\n    - model: a\n", 4, {"no 'layer_range'"});
}
TEST(MergeConfig, RefusesLayerRanges) {
  const auto refused = [](const std::string& range, std::initializer_list<std::string> parts) {
    expect_refused("merge_method: linear\nslices:\n  - sources:\n    - model: a\n      layer_range: " + range + "\n", 5, parts);
  };
  refused("[4, 4]", {"[4, 4]", "holds no layer"});
  refused("[5, 4]", {"holds no layer"});
  refused("[0]", {"two whole numbers"});
  refused("8", {"two whole numbers"});
  refused("[-1, 4]", {"whole number from 0", "'-1'"});
  refused("[0, 1.5]", {"whole number", "'1.5'"});
  refused("[0, 100001]", {"100000", "'100001'"});
}
TEST(MergeConfig, RefusesModulesWithoutContent) {
  expect_refused("merge_method: linear\nmodules: [a]\n", 2, {"'modules' must be a mapping"});
  expect_refused("merge_method: linear\nmodules:\n  text:\n    parameters: {weight: 1}\n", 4,
                 {"module 'text'", "either 'models' or 'slices'"});
}
TEST(MergeConfig, RefusesParameterValues) {
  for (const char* value : {"high", ".inf", "nan", "1e999", "~", "[1, x]", "[[1]]"})
    expect_refused(with_weight(value), 5, {"parameter 'weight' must be"});
  expect_refused(with_weight("\n        - {filter: mlp}"), 6, {"has no 'value'"});
  expect_refused(with_weight("\n        - {filter: mlp, value: 1}\n        - 2"), 7, {"must be a mapping"});
  expect_refused(with_weight("{filtre: mlp, value: 1}"), 5, {"'filtre'", "Did you mean 'filter'"});
}
TEST(MergeConfig, RefusesParametersThatAreNoMapping) { expect_refused(kModels + "parameters: 3\n", 7, {"parameters must be a mapping"}); }
TEST(MergeConfig, Fp8IsAnOutputTypeOfItsOwn) {
  const MergeConfig config = read_merge(kModels + "out_dtype: fp8_block\n");
  EXPECT_TRUE(config.out_fp8_block);
  EXPECT_FALSE(config.out_dtype);
}
TEST(MergeConfig, RefusesDtypes) {
  expect_refused(kModels + "dtype: bfloat15\n", 7, {"unknown dtype 'bfloat15'", "Did you mean 'bfloat16'"});
  expect_refused(kModels + "out_dtype: int8\n", 7, {"unknown out_dtype 'int8'"});
  expect_unsupported(kModels + "dtype: fp8_block\n", 7, {"fp8_block", "out_dtype of a merge alone"});
}
TEST(MergeConfig, RefusesModelReferences) {
  expect_refused(kModels + "base_model: a@b@c\n", 7, {"more than one '@'"});
  expect_refused(kModels + "base_model: [a]\n", 7, {"base_model must name a model"});
  expect_refused(kModels + "base_model: {override_architecture: X}\n", 7, {"names no model"});
  expect_refused(kModels + "base_model: {model: a+b}\n", 7, {"'a+b'", "lora:"});
}
TEST(MergeConfig, RefusesAnAdapterByName) {
  expect_unsupported(kModels + "base_model: a+adapter\n", 7, {"LoRA", "'adapter'", "later version"});
  expect_unsupported(kModels + "base_model: {model: {path: a}, lora: {path: adapter}}\n", 7, {"LoRA", "'adapter'"});
}
TEST(MergeConfig, RefusesTokenizers) {
  expect_refused(kModels + "tokenizer_source: base\ntokenizer: {source: base}\n", 8, {"cannot both be there"});
  expect_refused(kModels + "tokenizer_source: \"model:a\"\n", 7, {"'a'", "without 'model:'"});
  expect_refused(kModels + "tokenizer: base\n", 7, {"tokenizer must be a mapping"});
  expect_refused(kModels + "tokenizer: {tokens: [a]}\n", 7, {"'tokens' must be a mapping"});
  expect_refused(kModels + "tokenizer: {pad_to_multiple_of: 0}\n", 7, {"whole number from 1", "'0'"});
}
TEST(MergeConfig, RefusesAMergeKeyWithoutAMapping) {
  expect_refused(kModels + "parameters:\n  <<: 3\n", 8, {"'<<' must be given a mapping"});
}

TEST(MergeConfig, SaysWhereAMisplacedKeyBelongs) {
  expect_refused(kModels + "int8_mask: true\n", 7, {"unknown key 'int8_mask'", "write 'int8_mask' under 'parameters'"});
  expect_refused("merge_method: linear\nslices:\n  - sources:\n      - {model: a, layer_range: [0, 1], Weight: 1}\n", 4,
                 {"unknown key 'Weight'", "write 'weight' under 'parameters'"});
  expect_refused(kModels + "pad_to_multiple_of: 64\n", 7, {"unknown key 'pad_to_multiple_of'", "under 'tokenizer'"});
  expect_refused("merge_method: linear\nmodels:\n  - {model: a, lora: b}\n", 3, {"unknown key 'lora'", "MODEL+LORA"});
  expect_refused(kModels + "parameters:\n  weight:\n    - {pattern: mlp, value: 1}\n", 9, {"unknown key 'pattern'", "'filter'"});
  expect_refused("merge_method: linear\nbase_model: a\ngate_mode: random\nexperts:\n  - source_model: a\n  - source_model: b\n", 1,
                 {"unknown key 'merge_method'", "assembles a mixture"});
}

TEST(MergeConfig, ParametersOfAnUnknownMethodAreNotJudged) {
  expect_refused("models:\n  - {model: a, parameters: {path: some/file}}\nmerge_method: nowhere\n", 3, {"unknown merge method 'nowhere'"});
}

TEST(MergeConfig, ListsProblemsInTheOrderOfTheFile) {
  try {
    read_config("colour: 1\nmodels:\n  - {model: a, colour: 2}\nmerge_method: nowhere\ncolours: 3\n");
  } catch (const Error& error) {
    std::vector<int> lines;
    for (const Problem& problem : error.problems()) lines.push_back(problem.line);
    EXPECT_EQ(lines, (std::vector<int>{1, 3, 4, 5}));
    return;
  }
  ADD_FAILURE() << "the configuration was accepted";
}

}  // namespace
}  // namespace moeweld::config
