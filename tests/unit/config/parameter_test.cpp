#include "moeweld/config/parameter.h"

#include <gtest/gtest.h>

#include <array>

#include "moeweld/config/resolve.h"

namespace moeweld::config {
namespace {

ParameterSetting scalar(Scalar value) {
  return {.conditions = {{.filter = {}, .gradient = {std::move(value)}, .is_gradient = false}}, .line = 1};
}

ParameterSetting gradient(std::vector<Scalar> values) {
  return {.conditions = {{.filter = {}, .gradient = std::move(values), .is_gradient = true}}, .line = 1};
}

ConditionalValue when(std::optional<std::string> filter, std::vector<Scalar> values) {
  const bool is_gradient = values.size() != 1;
  return {.filter = std::move(filter), .gradient = std::move(values), .is_gradient = is_gradient};
}

double number(const ParameterSetting& setting, std::string_view tensor, double t) {
  const auto value = evaluate(setting, tensor, t);
  return value ? as_number(*value).value_or(-999) : -888;
}

constexpr std::string_view kQuery = "model.layers.3.self_attn.q_proj.weight";

TEST(Parameter, AScalarIsTheSameInEveryLayer) {
  for (const double t : {0.0, 0.37, 1.0}) EXPECT_EQ(number(scalar(0.3), kQuery, t), 0.3);
}

TEST(Parameter, AGradientInterpolatesLinearly) {
  // Three values over five layers: t = i / 4.
  const ParameterSetting setting = gradient({0.0, 1.0, 0.5});
  const std::array expected = {0.0, 0.5, 1.0, 0.75, 0.5};
  for (std::size_t layer = 0; layer < expected.size(); ++layer)
    EXPECT_DOUBLE_EQ(number(setting, kQuery, static_cast<double>(layer) / 4), expected[layer]);
}

TEST(Parameter, AGradientEndsExactlyAtItsLastValue) {
  EXPECT_EQ(number(gradient({0.1, 0.2, 0.7}), kQuery, 1.0), 0.7);
  EXPECT_EQ(number(gradient({0.1, 0.2, 0.7}), kQuery, 0.0), 0.1);
}

TEST(Parameter, AGradientOfOneValueIsThatValue) { EXPECT_EQ(number(gradient({0.4}), kQuery, 0.5), 0.4); }

TEST(Parameter, AnEmptyGradientYieldsNothing) { EXPECT_FALSE(evaluate(gradient({}), kQuery, 0.5)); }

TEST(Parameter, BooleansPickAnEntryInsteadOfInterpolating) {
  const ParameterSetting setting = gradient({false, true, false});
  for (const auto& [t, expected] : {std::pair{0.0, false}, {0.49, false}, {0.5, true}, {0.99, true}, {1.0, false}}) {
    const auto value = evaluate(setting, kQuery, t);
    ASSERT_TRUE(value);
    EXPECT_EQ(as_bool(*value), expected) << t;
  }
}

TEST(Parameter, StringsPickAnEntryAndStringsThatReadAsNumbersInterpolate) {
  const auto picked = evaluate(gradient({std::string("yes"), std::string("no")}), kQuery, 0.9);
  ASSERT_TRUE(picked);
  EXPECT_EQ(std::get<std::string>(*picked), "yes");
  EXPECT_DOUBLE_EQ(number(gradient({std::string("1e-5"), std::string("3e-5")}), kQuery, 0.5), 2e-5);
}

TEST(Parameter, TheFirstFilterInTheNameDecides) {
  const ParameterSetting setting{.conditions = {when("self_attn", {0.1}), when("q_proj", {0.2}), when(std::nullopt, {0.3})}, .line = 1};
  EXPECT_EQ(number(setting, kQuery, 0), 0.1);
  EXPECT_EQ(number(setting, "model.layers.3.mlp.up_proj.weight", 0), 0.3);
}

TEST(Parameter, AStarAppliesToEveryTensor) {
  const ParameterSetting setting{.conditions = {when("*", {0.5}), when("q_proj", {0.2})}, .line = 1};
  EXPECT_EQ(number(setting, kQuery, 0), 0.5);
  EXPECT_EQ(number(setting, "lm_head.weight", 0), 0.5);
}

TEST(Parameter, AFilterIsASubstringNotAPattern) {
  const ParameterSetting setting{.conditions = {when("self.attn", {0.1}), when("q_*", {0.2})}, .line = 1};
  EXPECT_FALSE(evaluate(setting, kQuery, 0));
}

TEST(Parameter, TheValueOfAFilterMayBeAGradient) {
  const ParameterSetting setting{.conditions = {when("q_proj", {1.0, 3.0})}, .line = 1};
  EXPECT_DOUBLE_EQ(number(setting, kQuery, 0.25), 1.5);
}

TEST(Parameter, NumbersAreReadFromTextAsYaml11Has) {
  EXPECT_EQ(as_number(Scalar{std::string("1e-5")}), 1e-5);
  EXPECT_EQ(as_number(Scalar{std::string("+2")}), 2.0);
  EXPECT_EQ(as_number(Scalar{true}), 1.0);
  for (const char* text : {"", "+", "1e999", "nan", "inf", "0.5x", " 1", "++1", "+-1"})
    EXPECT_FALSE(as_number(Scalar{std::string(text)})) << text;
}

TEST(Parameter, BooleansAreReadFromNumbersAndWords) {
  EXPECT_EQ(as_bool(Scalar{1.0}), true);
  EXPECT_EQ(as_bool(Scalar{0.0}), false);
  EXPECT_FALSE(as_bool(Scalar{0.5}));
  for (const char* text : {"true", "Yes", "ON", "y", "1"}) EXPECT_EQ(as_bool(Scalar{std::string(text)}), true) << text;
  for (const char* text : {"FALSE", "no", "Off", "n", "0"}) EXPECT_EQ(as_bool(Scalar{std::string(text)}), false) << text;
  EXPECT_FALSE(as_bool(Scalar{std::string("maybe")}));
}

TEST(Resolve, TheFirstScopeThatYieldsAValueWins) {
  const ParameterMap model = {{"weight", scalar(0.1)}};
  const ParameterMap slice = {{"weight", scalar(0.2)}, {"density", scalar(0.5)}};
  const ParameterMap config = {{"weight", scalar(0.3)}, {"density", scalar(0.6)}, {"lambda", scalar(2.0)}};
  const std::array<const ParameterMap*, 4> scopes = {&model, &slice, nullptr, &config};
  EXPECT_EQ(resolve("weight", scopes, kQuery, 0), Scalar{0.1});
  EXPECT_EQ(resolve("density", scopes, kQuery, 0), Scalar{0.5});
  EXPECT_EQ(resolve("lambda", scopes, kQuery, 0), Scalar{2.0});
  EXPECT_FALSE(resolve("t", scopes, kQuery, 0));
}

TEST(Resolve, AScopeWhoseFiltersDoNotApplyPassesToTheNext) {
  const ParameterMap model = {{"weight", {.conditions = {when("mlp", {0.9})}, .line = 1}}};
  const ParameterMap config = {{"weight", scalar(0.3)}};
  const std::array<const ParameterMap*, 2> scopes = {&model, &config};
  EXPECT_EQ(resolve("weight", scopes, kQuery, 0), Scalar{0.3});
  EXPECT_EQ(resolve("weight", scopes, "model.layers.3.mlp.up_proj.weight", 0), Scalar{0.9});
}

}  // namespace
}  // namespace moeweld::config
