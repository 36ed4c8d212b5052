#pragma once
/// The one exception type of moeweld, and a collector that lets planning report every problem at once.

#include <cstdint>
#include <exception>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace moeweld {

/// What went wrong, in the terms a caller can act on. app maps each to an exit code (docs/configuration.md lists them).
enum class ErrorCode : std::uint8_t {
  kUsage,          ///< the command line makes no sense
  kInvalidConfig,  ///< the YAML is not a configuration that can be run
  kInvalidInput,   ///< a model directory, checkpoint file or manifest is damaged, incomplete or does not fit the others
  kUnsupported,    ///< valid, but this version does not do it; the message names it
  kIo,             ///< the operating system refused or failed a read or write
  kNoSpace,        ///< not enough space or quota for the output
  kOutputExists,   ///< OUT is there already, or another job works on it
  kVerifyFailed,   ///< the bytes on disk are not those the manifest names
  kPeerFailed,     ///< another rank failed or disagrees
  kInterrupted,    ///< a signal asked to stop
  kInternal,       ///< a defect of moeweld
};

/// Lower-case words for machines ("invalid_config").
std::string_view error_code_name(ErrorCode code);

/// One thing that is wrong: where it is, and a sentence that says what disagrees and what to do.
struct Problem {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;  ///< a full sentence, without path, line or tensor in front
  std::string path;     ///< file or directory, empty if none
  int line = 0;         ///< 1-based line of `path`, 0 if none
  std::string tensor;   ///< tensor name, empty if none

  bool operator==(const Problem&) const = default;
};

/// "path:line: tensor 'name' message" with the parts that are there. Invisible and control characters of untrusted names are escaped.
std::string describe(const Problem& problem);

/// Thrown by every module. Holds at least one problem; all of them are shown to the user.
class Error : public std::exception {
 public:
  explicit Error(Problem problem);
  explicit Error(std::vector<Problem> problems);
  Error(ErrorCode code, std::string message, std::string path = {}, std::string tensor = {});

  const std::vector<Problem>& problems() const noexcept { return problems_; }
  ErrorCode code() const noexcept { return problems_.front().code; }
  const char* what() const noexcept override { return what_.c_str(); }

 private:
  std::vector<Problem> problems_;
  std::string what_;
};

/// Collects problems so that they can be reported together. Not thread-safe.
class ProblemList {
 public:
  void add(Problem problem) { problems_.push_back(std::move(problem)); }
  void add(const Error& error) { problems_.insert(problems_.end(), error.problems().begin(), error.problems().end()); }
  bool empty() const { return problems_.empty(); }
  const std::vector<Problem>& problems() const { return problems_; }
  /// Throws Error with all problems, if there are any.
  void throw_if_any() const;
  /// Runs `action`; an Error it throws is collected. Returns true if nothing was thrown.
  template <typename Action>
  bool attempt(Action&& action) {
    try {
      action();
      return true;
    } catch (const Error& error) {
      add(error);
      return false;
    }
  }

 private:
  std::vector<Problem> problems_;
};

}  // namespace moeweld
