#include "moeweld/base/error.h"

#include <gtest/gtest.h>

#include <climits>
#include <set>

#include "moeweld/base/checked.h"

namespace moeweld {
namespace {

TEST(Describe, ShowsThePartsThatAreThere) {
  EXPECT_EQ(describe({ErrorCode::kInvalidInput, "is F32.", "b/model.safetensors", 0, "x.weight"}),
            "b/model.safetensors: tensor 'x.weight' is F32.");
  EXPECT_EQ(describe({ErrorCode::kInvalidConfig, "unknown parameter 'densty'", "ties.yml", 14, ""}),
            "ties.yml:14: unknown parameter 'densty'");
  EXPECT_EQ(describe({ErrorCode::kUsage, "no command", "", 0, ""}), "no command");
}

TEST(Describe, EscapesWhatATerminalWouldObey) {
  const std::string text = describe({ErrorCode::kInvalidInput, "m\x1b[2J", "a\nb", 0, "t\x80\xe2\x80\xae"});
  EXPECT_EQ(text, "a\\x0Ab: tensor 't\\x80\\xE2\\x80\\xAE' m\\x1B[2J");
}

TEST(Error, ShowsAllItsProblemsAndHasTheFirstOnesCode) {
  const Error error({Problem{ErrorCode::kIo, "one", "p", 0, ""}, Problem{ErrorCode::kUsage, "two", "", 0, ""}});
  EXPECT_EQ(error.code(), ErrorCode::kIo);
  EXPECT_STREQ(error.what(), "p: one\ntwo");
}

TEST(ErrorCode, NamesAreDistinct) {
  std::set<std::string_view> names;
  for (int code = 0; code <= static_cast<int>(ErrorCode::kInternal); ++code) names.insert(error_code_name(static_cast<ErrorCode>(code)));
  EXPECT_EQ(names.size(), 11U);
  EXPECT_EQ(error_code_name(ErrorCode::kInvalidConfig), "invalid_config");
}

TEST(ProblemList, CollectsAndThrowsEverything) {
  ProblemList problems;
  EXPECT_NO_THROW(problems.throw_if_any());
  EXPECT_TRUE(problems.attempt([] {}));
  EXPECT_FALSE(problems.attempt([] { throw Error(ErrorCode::kIo, "first"); }));
  problems.add(Problem{ErrorCode::kUsage, "second", "", 0, ""});
  try {
    problems.throw_if_any();
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.problems(), problems.problems());
    EXPECT_EQ(error.problems().size(), 2U);
  }
}

TEST(Checked, ArithmeticRefusesToWrap) {
  EXPECT_EQ(checked_add<std::uint64_t>(UINT64_MAX - 1, 1), UINT64_MAX);
  EXPECT_FALSE(checked_add<std::uint64_t>(UINT64_MAX, 1));
  EXPECT_FALSE(checked_multiply<std::uint64_t>(std::uint64_t{1} << 32, std::uint64_t{1} << 32));
  EXPECT_EQ(checked_cast<int>(std::uint64_t{INT_MAX}), INT_MAX);
  EXPECT_THROW(checked_cast<int>(std::uint64_t{INT_MAX} + 1), Error);
  EXPECT_THROW(checked_cast<std::uint32_t>(-1), Error);
}

}  // namespace
}  // namespace moeweld
