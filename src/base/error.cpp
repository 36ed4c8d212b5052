#include "moeweld/base/error.h"

#include <utility>

#include "moeweld/base/text.h"

namespace moeweld {
namespace {

constexpr std::size_t kMaxMessageBytes = 4000;

std::vector<Problem> at_least_one(std::vector<Problem> problems) {
  if (problems.empty()) problems.push_back({ErrorCode::kInternal, "an error was thrown without a problem", "", 0, ""});
  return problems;
}

}  // namespace

std::string_view error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kUsage:
      return "usage";
    case ErrorCode::kInvalidConfig:
      return "invalid_config";
    case ErrorCode::kInvalidInput:
      return "invalid_input";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kIo:
      return "io";
    case ErrorCode::kNoSpace:
      return "no_space";
    case ErrorCode::kOutputExists:
      return "output_exists";
    case ErrorCode::kVerifyFailed:
      return "verify_failed";
    case ErrorCode::kPeerFailed:
      return "peer_failed";
    case ErrorCode::kInterrupted:
      return "interrupted";
    case ErrorCode::kInternal:
      return "internal";
  }
  return "internal";
}

std::string describe(const Problem& problem) {
  std::string text;
  if (!problem.path.empty()) {
    text += printable(problem.path, kMaxMessageBytes);
    if (problem.line > 0) text += ":" + std::to_string(problem.line);
    text += ": ";
  } else if (problem.line > 0) {
    text += "line " + std::to_string(problem.line) + ": ";
  }
  if (!problem.tensor.empty()) text += "tensor '" + printable(problem.tensor) + "' ";
  text += printable(problem.message, kMaxMessageBytes);
  return text;
}

Error::Error(Problem problem) : Error(std::vector<Problem>{std::move(problem)}) {}

Error::Error(std::vector<Problem> problems) : problems_(at_least_one(std::move(problems))) {
  for (const Problem& problem : problems_) {
    if (!what_.empty()) what_ += '\n';
    what_ += describe(problem);
  }
}

Error::Error(ErrorCode code, std::string message, std::string path, std::string tensor)
    : Error(Problem{code, std::move(message), std::move(path), 0, std::move(tensor)}) {}

void ProblemList::throw_if_any() const {
  if (!problems_.empty()) throw Error(problems_);
}

}  // namespace moeweld
