#pragma once
/// What a test wants to see in an error.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <initializer_list>
#include <string>

#include "moeweld/base/error.h"

namespace moeweld {

/// `action` throws an Error of this code, and what the user sees holds all of `parts`: file, tensor and the two numbers.
template <typename Action>
void expect_error(Action&& action, ErrorCode code, std::initializer_list<std::string> parts) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error_code_name(error.code()), error_code_name(code)) << error.what();
    for (const std::string& part : parts) EXPECT_THAT(std::string(error.what()), testing::HasSubstr(part));
    return;
  }
  std::string wanted;
  for (const std::string& part : parts) wanted += " '" + part + "'";
  ADD_FAILURE() << "nothing was thrown; expected" << wanted;
}

}  // namespace moeweld
