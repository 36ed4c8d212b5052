#pragma once
/// Bytes of inputs that several operations, or sources, of a plan read: kept in memory between them, so that each is read once.

#include <compare>
#include <cstdint>
#include <map>
#include <span>

#include "moeweld/plan/merge_plan.h"

namespace moeweld::plan {

/// How much is kept at most between the operations of one group of output files; exec has room for two groups.
constexpr std::uint64_t kKeptReadBytes = std::uint64_t{64} << 20;

/// A leaf of a source view.
struct LeafBytes {
  std::uint32_t file = 0;
  std::uint64_t begin = 0;
  std::uint64_t size_bytes = 0;
  auto operator<=>(const LeafBytes&) const = default;
};

/// Bytes of the leaves that both lists of operations read.
std::uint64_t common_leaf_bytes(std::span<const Operation> a, std::span<const Operation> b);

/// Leaves that stand in several stacks of rows or columns, if they are small enough to be kept: of any operations of a plan of several
/// outputs, else of one operation that merges several sources.
std::map<LeafBytes, std::uint32_t> repeated_leaves(const MergePlan& plan);

}  // namespace moeweld::plan
