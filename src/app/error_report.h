#pragma once
/// Problems as the user sees them, and the exit code that goes with them.

#include <cstdint>
#include <string>
#include <string_view>

#include "moeweld/base/error.h"

namespace moeweld::app {

int exit_code(ErrorCode code);

/// What became of the output of a command that failed.
enum class LeftBehind : std::uint8_t {
  kNotAsked,  ///< the command writes none
  kNothing,
  kOutputAsItWas,
  kPartial,  ///< OUT.partial, to be continued
};

/// "moeweld: cannot merge: 2 problems", then each, indented and wrapped, then what became of the output.
std::string error_text(const Error& error, std::string_view what, LeftBehind left);
/// One JSON object on one line: {"event": "error", "exit_code": …, "problems": […]}.
std::string error_json(const Error& error);

}  // namespace moeweld::app
