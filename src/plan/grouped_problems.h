#pragma once
/// One message for the many tensors that have the same problem.

#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "moeweld/base/error.h"

namespace moeweld::plan {

class GroupedProblems {
 public:
  /// The first problem of a group is shown, the others are counted.
  void add(const std::string& group, Problem problem) {
    const auto [known, is_new] = index_.emplace(group, groups_.size());
    if (is_new) {
      groups_.emplace_back(std::move(problem), 1);
    } else {
      ++groups_[known->second].second;
    }
  }
  bool contains(const std::string& group) const { return index_.contains(group); }
  /// Only counts; for groups that are there.
  void count(const std::string& group) { ++groups_[index_.at(group)].second; }

  void report(ProblemList& problems) const {
    for (const auto& [problem, count] : groups_) {
      Problem shown = problem;
      if (count > 1) shown.message += " So it is with " + std::to_string(count - 1) + (count == 2 ? " more tensor." : " more tensors.");
      problems.add(std::move(shown));
    }
  }

 private:
  std::map<std::string, std::size_t> index_;
  std::vector<std::pair<Problem, std::size_t>> groups_;
};

}  // namespace moeweld::plan
