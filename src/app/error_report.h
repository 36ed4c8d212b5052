#pragma once
/// Problems as the user sees them, and the exit code that goes with them.

#include <string>
#include <string_view>

#include "moeweld/base/error.h"

namespace moeweld::app {

int exit_code(ErrorCode code);

/// "moeweld: cannot merge: 2 problems", then each, indented and wrapped, then what became of the output.
std::string error_text(const Error& error, std::string_view what, bool writes_output);
/// One JSON object on one line: {"event": "error", "exit_code": …, "problems": […]}.
std::string error_json(const Error& error);

}  // namespace moeweld::app
