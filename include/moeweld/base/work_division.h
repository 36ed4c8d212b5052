#pragma once
/// Work that ranks take from each other: a line of portions, of which every rank has a stretch.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace moeweld {

/// A value, without ranks of its own: whoever keeps it (the coordinator, or threads behind a lock) asks it. Every portion is given to one
/// rank, once.
class WorkDivision {
 public:
  struct Taken {
    std::uint64_t portion = 0;
    bool is_end = false;  ///< of its rank's stretch: what the rank takes next is taken from another
    bool operator==(const Taken&) const = default;
  };

  /// Rank r begins with portions [first_portion[r], first_portion[r + 1]); entries ascend. The first of each stretch counts as taken: its
  /// rank begins with it unasked.
  /// `spares_last`: see take(); without it, work moves wherever it can, which is best where borders between ranks cost nothing.
  WorkDivision(std::span<const std::uint64_t> first_portion, bool spares_last);

  /// What `rank` does next: the front of its stretch, or, when that is empty, of the back half of the longest stretch, which becomes its
  /// own then. With `spares_last` a stretch's last two portions go to a rank that has taken at least twice as many as its owner: else the
  /// owner will come for them soon, and what a border between ranks costs is not worth it. Nothing when there is none for it.
  std::optional<Taken> take(std::size_t rank);

  /// Nothing is left from now on.
  void close();

 private:
  struct Stretch {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    std::uint64_t num_taken = 0;  ///< by its rank, of any stretch
  };
  bool spares_last_;
  std::vector<Stretch> stretches_;  // by rank: what nobody has taken yet
};

}  // namespace moeweld
