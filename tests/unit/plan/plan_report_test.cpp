#include "moeweld/plan/plan_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>
#include <string>

#include "moeweld/base/text.h"
#include "moeweld/plan/schedule.h"
#include "unit/plan/tiny_models.h"

namespace moeweld::plan {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

/// Two models of 12 BF16 tensors, and one that follows from the config.
class PlanReport : public ::testing::Test {
 protected:
  PlanReport() {
    const TinyModel model{.num_layers = 1, .extra = {{"model.layers.0.self_attn.rotary_emb.inv_freq", DType::kF32, {1}}}};
    workshop_.write("a", model);
    workshop_.write("b", model);
    // Embedding, head 2·10·4; norms 3·4; attention 4·4·4; MLP 3·6·4, all of 2 bytes.
    tensor_bytes_ = 2 * (2 * 40 + 3 * 4 + 4 * 16 + 3 * 24);
    plan_ = workshop_.plan(
        "models:\n  - {model: $/a, parameters: {weight: 0.25}}\n  - {model: $/b, parameters: {weight: 0.5}}\nmerge_method: linear\n"
        "parameters: {normalize: false, int8_mask: true}\n");
  }
  std::string text(int ranks, bool verbose) const {
    return plan_text(plan_, make_schedule(plan_, ranks), std::uint64_t{64} << 20, verbose);
  }

  Workshop workshop_;
  std::uint64_t tensor_bytes_ = 0;
  MergePlan plan_;
};

TEST_F(PlanReport, TextSaysWhatIsReadWrittenAndLeftOut) {
  const std::string one = text(1, false);
  EXPECT_THAT(one, HasSubstr("12 tensors, " + format_bytes(tensor_bytes_ + plan_.output_files[0].header.size()) + " out in 1 file, "));
  EXPECT_THAT(one, HasSubstr(std::to_string(2 * tensor_bytes_) + " B in"));
  EXPECT_THAT(one, ContainsRegex("one rank: [^\n]*64 MiB of memory"));
  EXPECT_THAT(one, HasSubstr("random seed 0\n"));
  EXPECT_THAT(one, ContainsRegex("not carried over: model.layers.0.self_attn.rotary_emb.inv_freq and 1 more [(]2 elements[)]: "));
  EXPECT_THAT(one, ContainsRegex("note: [^\n]*'int8_mask' has no effect on method 'linear'"));
  EXPECT_THAT(one, Not(HasSubstr("\n  model.norm.weight")));
  EXPECT_THAT(text(3, false), HasSubstr("per rank (3): at most "));
}

TEST_F(PlanReport, VerboseTextListsTheTensorsWithTypeAndShape) {
  EXPECT_THAT(text(1, true),
              AllOf(HasSubstr("\n  model.norm.weight  BF16 [4]  model"), HasSubstr("\n  lm_head.weight  BF16 [10, 4]  model")));
}

TEST_F(PlanReport, NamesFromFilesCannotBreakTheLines) {
  plan_.dropped.push_back({"b", "bad\nname", 1, "because"});
  EXPECT_THAT(text(1, false), AllOf(HasSubstr("not carried over: bad"), Not(HasSubstr("bad\nname"))));
}

TEST_F(PlanReport, JsonHoldsTheWholePlan) {
  const Schedule schedule = make_schedule(plan_, 3);
  std::ostringstream out;
  write_plan_json(out, plan_, schedule, 12345);
  const formats::Json json = formats::Json::parse(out.str());
  EXPECT_EQ(json["schema"], "moeweld.plan/1");
  EXPECT_EQ(json["ranks"], 3);
  EXPECT_EQ(json["memory_bytes_per_rank"], 12345);
  EXPECT_EQ(json["input_bytes"], 2 * tensor_bytes_);
  ASSERT_EQ(json["models"].size(), 2U);
  EXPECT_EQ(json["models"][1]["directory"], workshop_.path("b"));
  EXPECT_EQ(json["dropped"].size(), 2U);
  EXPECT_EQ(json["dropped"][0]["name"], "model.layers.0.self_attn.rotary_emb.inv_freq");
  ASSERT_EQ(json["rank_loads"].size(), 3U);
  std::uint64_t written = 0;
  for (const formats::Json& load : json["rank_loads"]) written += load["write_bytes"].get<std::uint64_t>();
  std::uint64_t file_bytes = 0;
  for (const formats::Json& file : json["output_files"]) file_bytes += file["size_bytes"].get<std::uint64_t>();
  EXPECT_EQ(written, file_bytes);
  ASSERT_EQ(json["operations"].size(), 12U);
  for (const formats::Json& operation : json["operations"]) {
    EXPECT_EQ(operation["operation"], "linear");
    EXPECT_EQ(operation["dtype"], "BF16");
    ASSERT_EQ(operation["sources"].size(), 2U);
    EXPECT_EQ(operation["sources"][0]["weight"], 0.25);
    EXPECT_EQ(operation["sources"][1]["weight"], 0.5);
    EXPECT_EQ(operation["parameters"]["normalize"], 0);
    if (operation["name"] != "lm_head.weight") continue;
    EXPECT_EQ(operation["shape"], formats::Json({10, 4}));
    EXPECT_EQ(operation["sources"][1]["elements"], 40);
    EXPECT_EQ(source_name(plan_, operation_named(plan_, "lm_head.weight").sources[1]), "b:lm_head.weight");
    EXPECT_EQ(operation["sources"][1]["begin"], operation_named(plan_, "lm_head.weight").sources[1].begin);
  }
}

TEST_F(PlanReport, JsonOfAnEmptyPlanIsJson) {
  const MergePlan empty;
  std::ostringstream out;
  write_plan_json(out, empty, make_schedule(empty, 1), 0);
  EXPECT_TRUE(formats::Json::parse(out.str())["operations"].empty());
}

}  // namespace
}  // namespace moeweld::plan
