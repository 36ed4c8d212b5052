#pragma once
/// A configuration from text, against a small table of methods.

#include <string>
#include <vector>

#include "moeweld/config/merge_config.h"
#include "unit/expect_error.h"

namespace moeweld::config {

inline ConfigFile read_config(const std::string& text, bool lenient = false) {
  static const std::vector<MethodInfo> methods = {
      {.name = "linear", .parameters = {{"weight", true}, {"normalize", false}}},
      {.name = "slerp", .parameters = {{"t", false}}},
      {.name = "task_arithmetic", .parameters = {{"weight", true}, {"normalize", false}, {"lambda", false}}},
      {.name = "ties", .parameters = {{"weight", true}, {"density", true}}, .implemented = false},
  };
  return parse_config(text, "merge.yaml", methods, {.lenient = lenient});
}

/// Exactly one problem, with this code, on this line, and a message that holds all of `parts`.
inline void expect_problem(const std::string& text, int line, ErrorCode code, std::initializer_list<std::string> parts) {
  SCOPED_TRACE(text.substr(0, 500));
  try {
    read_config(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.problems().size(), 1u) << error.what();
    const Problem& problem = error.problems().front();
    EXPECT_EQ(error_code_name(problem.code), error_code_name(code)) << error.what();
    EXPECT_EQ(problem.path, "merge.yaml");
    EXPECT_EQ(problem.line, line) << error.what();
    for (const std::string& part : parts) EXPECT_THAT(problem.message, testing::HasSubstr(part));
    return;
  }
  ADD_FAILURE() << "the configuration was accepted";
}

inline void expect_refused(const std::string& text, int line, std::initializer_list<std::string> parts) {
  expect_problem(text, line, ErrorCode::kInvalidConfig, parts);
}

inline void expect_unsupported(const std::string& text, int line, std::initializer_list<std::string> parts) {
  expect_problem(text, line, ErrorCode::kUnsupported, parts);
}

}  // namespace moeweld::config
