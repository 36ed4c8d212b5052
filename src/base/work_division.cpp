#include "moeweld/base/work_division.h"

#include <algorithm>

namespace moeweld {

WorkDivision::WorkDivision(std::span<const std::uint64_t> first_portion) {
  for (std::size_t rank = 0; rank + 1 < first_portion.size(); ++rank) {
    stretches_.push_back({std::min(first_portion[rank] + 1, first_portion[rank + 1]), first_portion[rank + 1]});
  }
}

std::optional<std::uint64_t> WorkDivision::take(std::size_t rank) {
  Stretch& own = stretches_.at(rank);
  if (own.begin == own.end) {
    const auto longest = std::max_element(stretches_.begin(), stretches_.end(),
                                          [](const Stretch& a, const Stretch& b) { return a.end - a.begin < b.end - b.begin; });
    if (longest->begin == longest->end) return std::nullopt;
    own = {longest->begin + (longest->end - longest->begin) / 2, longest->end};
    longest->end = own.begin;
  }
  return own.begin++;
}

void WorkDivision::close() {
  for (Stretch& stretch : stretches_) stretch.begin = stretch.end;
}

}  // namespace moeweld
