#include "moeweld/base/work_division.h"

#include <algorithm>

namespace moeweld {

namespace {

/// Taking one of two portions saves one portion's time at most, and a border inside a tensor that has to be measured costs about as much.
constexpr std::uint64_t kSparedPortions = 2;

}  // namespace

WorkDivision::WorkDivision(std::span<const std::uint64_t> first_portion, bool spares_last) : spares_last_(spares_last) {
  for (std::size_t rank = 0; rank + 1 < first_portion.size(); ++rank) {
    const std::uint64_t begin = std::min(first_portion[rank] + 1, first_portion[rank + 1]);
    stretches_.push_back({begin, first_portion[rank + 1], begin - first_portion[rank]});
  }
}

std::optional<WorkDivision::Taken> WorkDivision::take(std::size_t rank) {
  Stretch& own = stretches_.at(rank);
  if (own.begin == own.end) {
    const auto longest = std::max_element(stretches_.begin(), stretches_.end(),
                                          [](const Stretch& a, const Stretch& b) { return a.end - a.begin < b.end - b.begin; });
    const std::uint64_t length = longest->end - longest->begin;
    if (length == 0 || (spares_last_ && length <= kSparedPortions && own.num_taken < 2 * longest->num_taken)) return std::nullopt;
    own.begin = longest->begin + length / 2;
    own.end = longest->end;
    longest->end = own.begin;
  }
  ++own.num_taken;
  const std::uint64_t portion = own.begin++;
  return Taken{portion, own.begin == own.end};
}

void WorkDivision::close() {
  for (Stretch& stretch : stretches_) stretch.begin = stretch.end;
}

}  // namespace moeweld
