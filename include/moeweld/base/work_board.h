#pragma once
/// Ranks take portions of the work while they work, outside collectives.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "moeweld/base/work_division.h"

namespace moeweld {

/// Made by Peers::make_work_board() over a WorkDivision; must not outlive its Peers. A rank asks for one portion at a time.
class WorkBoard {
 public:
  struct Answer {
    std::optional<WorkDivision::Taken> portion;  ///< none: nothing is left for anybody
  };

  virtual ~WorkBoard() = default;

  /// Whether serve() has to be called every few milliseconds until has_ended(), on every rank and from the thread that calls collectives,
  /// which then alone may use the board. Otherwise any one thread may, answers are there at once, and nobody has to serve.
  virtual bool needs_serving() const { return false; }

  /// Whether other ranks' questions come to this one.
  virtual bool answers() const { return false; }

  /// Asks for the next portion. Not before the last answer is here. Never waits; not collective.
  virtual void ask() = 0;

  /// The answer to ask(), once, when it is here. Never waits; not collective.
  virtual std::optional<Answer> poll() = 0;

  /// Moves what is on its way. Never waits; not collective.
  virtual void serve() {}

  /// This rank asks no more. With `failed` nobody gets anything more: what is left would be in vain. Once, by every rank; an answer that is
  /// on its way is dropped. Never waits; not collective.
  virtual void leave(bool failed) = 0;

  /// Whether this rank need not serve any longer: on the rank that answers, when all have left.
  virtual bool has_ended() { return true; }
};

/// A board whose division is in this process.
std::unique_ptr<WorkBoard> make_single_work_board(std::span<const std::uint64_t> first_portion);

}  // namespace moeweld
