#pragma once
/// How far every rank is, seen from rank 0 while all of them work: the one way to tell another rank something outside collectives.

#include <array>
#include <cstdint>
#include <functional>
#include <span>

namespace moeweld {

/// Made by Peers::make_progress_board(); must not outlive its Peers. Every rank uses it from the thread that calls collectives.
class ProgressBoard {
 public:
  using Figures = std::array<std::uint64_t, 2>;

  virtual ~ProgressBoard() = default;

  /// Lets rank 0 know. Never waits for another rank: figures are left out, not queued, while older ones are still on the way. Not
  /// collective.
  virtual void publish(const Figures& figures) = 0;

  /// On rank 0 every rank's figures, in rank order, as far as they have arrived (zeros before the first); elsewhere empty. Valid until the
  /// next call. Not collective.
  virtual std::span<const Figures> collect() = 0;

  /// Publishes this rank's last figures. Rank 0 returns when it has everyone's, and calls `while_waiting` (which must not throw) several
  /// times a second until then; the others return when theirs are on the way. Collective: a board on which something was published must
  /// be finished by every rank, whatever became of the work. No use after that but collect().
  virtual void finish(const Figures& figures, const std::function<void()>& while_waiting) = 0;
};

}  // namespace moeweld
