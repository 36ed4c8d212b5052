#include "app/error_report.h"

#include "moeweld/formats/json.h"

namespace moeweld::app {

namespace {

constexpr std::size_t kLineWidth = 120;

/// Indents by two, continuation lines by four.
std::string wrap(const std::string& text) {
  std::string result = "  ";
  std::size_t column = 2;
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t end = text.find(' ', begin);
    if (end == std::string::npos) end = text.size();
    if (column > 4 && column + (end - begin) > kLineWidth) {
      result += "\n    ";
      column = 4;
    } else if (begin != 0) {
      result += ' ';
      ++column;
    }
    result.append(text, begin, end - begin);
    column += end - begin;
    begin = end + 1;
  }
  return result + "\n";
}

}  // namespace

int exit_code(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInternal:
      return 1;
    case ErrorCode::kUsage:
      return 2;
    case ErrorCode::kInvalidConfig:
    case ErrorCode::kInvalidInput:
      return 3;
    case ErrorCode::kUnsupported:
      return 4;
    case ErrorCode::kIo:
      return 5;
    case ErrorCode::kNoSpace:
      return 6;
    case ErrorCode::kOutputExists:
      return 7;
    case ErrorCode::kVerifyFailed:
      return 8;
    case ErrorCode::kPeerFailed:
      return 9;
    case ErrorCode::kInterrupted:
      return 75;
  }
  return 1;
}

std::string error_text(const Error& error, std::string_view what, LeftBehind left) {
  const std::size_t count = error.problems().size();
  std::string text =
      "moeweld: cannot " + std::string(what) + ": " + std::to_string(count) + (count == 1 ? " problem" : " problems") + "\n\n";
  for (const Problem& problem : error.problems()) text += wrap(describe(problem));
  switch (left) {
    case LeftBehind::kNotAsked:
      return text;
    case LeftBehind::kNothing:
      return text + "\nNothing was written.\n";
    case LeftBehind::kOutputAsItWas:
      return text + "\nThe output was not touched.\n";
    case LeftBehind::kPartial:
      return text +
             "\nWhat is done is kept in OUT.partial. Run the command again with --resume to continue, or with --force to begin anew.\n";
  }
  return text;
}

std::string error_json(const Error& error) {
  formats::Json json;
  json["event"] = "error";
  json["exit_code"] = exit_code(error.code());
  json["problems"] = formats::Json::array();
  for (const Problem& problem : error.problems()) {
    formats::Json entry;
    entry["code"] = error_code_name(problem.code);
    entry["message"] = problem.message;
    if (!problem.path.empty()) entry["path"] = problem.path;
    if (problem.line != 0) entry["line"] = problem.line;
    if (!problem.tensor.empty()) entry["tensor"] = problem.tensor;
    json["problems"].push_back(std::move(entry));
  }
  return json.dump(-1, ' ', false, formats::Json::error_handler_t::replace) + "\n";
}

}  // namespace moeweld::app
