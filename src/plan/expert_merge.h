#pragma once
/// A merge method over the experts of a layer: `moeweld extract --average` and `--merge`.

#include <cstdint>
#include <string>
#include <vector>

#include "moeweld/base/error.h"
#include "moeweld/merge/method.h"
#include "moeweld/plan/extraction.h"

namespace moeweld::plan {

/// Parameters and base of every matrix alike.
class ExpertMerge {
 public:
  /// kAverage or kMerge. What is wrong with method, base or parameters goes to `problems`.
  ExpertMerge(const Extraction& extraction, std::size_t num_experts, ProblemList& problems);

  /// Makes the operation, whose sources and shape are there, one source for each expert, a merge of them.
  void fill(std::uint64_t seed, Operation& operation, ProblemList& problems) const;

 private:
  void read_parameters(const Extraction& extraction, ProblemList& problems);

  const merge::MethodRow* method_ = nullptr;
  std::size_t num_experts_;
  int base_ = -1;
  std::vector<double> shared_;
  std::vector<std::vector<double>> of_experts_;  // by expert
};

}  // namespace moeweld::plan
