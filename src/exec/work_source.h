#pragma once
/// Where a rank's work comes from.

#include <optional>
#include <span>
#include <utility>

#include "moeweld/plan/schedule.h"

namespace moeweld::exec {

class WorkSource {
 public:
  virtual ~WorkSource() = default;
  /// The next runs, empty when there is no more work; valid as long as the schedule. Nothing if that is not known yet: with `wait` it is
  /// waited for. Not collective.
  virtual std::optional<std::span<const plan::FileRun>> take(bool wait) = 0;

  /// Whether the next runs would be taken from another rank, which may itself be about to begin them: better not before this one has
  /// nothing to do. A guess.
  virtual bool next_is_others() const { return false; }
};

/// All at once.
class WholeShare final : public WorkSource {
 public:
  explicit WholeShare(std::span<const plan::FileRun> runs) : runs_(runs) {}
  std::optional<std::span<const plan::FileRun>> take(bool) override { return std::exchange(runs_, {}); }

 private:
  std::span<const plan::FileRun> runs_;
};

}  // namespace moeweld::exec
