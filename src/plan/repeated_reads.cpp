#include "moeweld/plan/repeated_reads.h"

#include <functional>
#include <set>

namespace moeweld::plan {

namespace {

void for_leaves(const SourceView& view, const std::function<void(const LeafBytes&)>& act) {
  if (view.kind == SourceView::Kind::kBytes) act({view.file, view.begin, view.num_elements * size_bytes(view.dtype)});
  for (const SourceView& child : view.children) for_leaves(child, act);
}

}  // namespace

std::uint64_t common_leaf_bytes(std::span<const Operation> a, std::span<const Operation> b) {
  std::set<LeafBytes> known;
  for (const Operation& operation : a) {
    for (const SourceView& source : operation.sources) for_leaves(source, [&](const LeafBytes& leaf) { known.insert(leaf); });
  }
  std::uint64_t sum = 0;
  for (const Operation& operation : b) {
    for (const SourceView& source : operation.sources) {
      for_leaves(source, [&](const LeafBytes& leaf) { sum += known.erase(leaf) != 0 ? leaf.size_bytes : 0; });
    }
  }
  return sum;
}

std::map<LeafBytes, std::uint32_t> repeated_leaves(const MergePlan& plan) {
  std::map<LeafBytes, std::uint32_t> counts;
  for (const Operation& operation : plan.operations) {
    std::map<LeafBytes, std::uint32_t> own;
    for (const SourceView& source : operation.sources) {
      // A view that is a leaf is read into its slot.
      if (source.kind != SourceView::Kind::kRows && source.kind != SourceView::Kind::kColumns) continue;
      for (const SourceView& child : source.children) {
        if (child.kind == SourceView::Kind::kBytes) ++own[{child.file, child.begin, child.num_elements * size_bytes(child.dtype)}];
      }
    }
    for (const auto& [leaf, count] : own) {
      // Within one model only what stands beside each of several sources repeats: a shared expert in a merge over experts.
      if (!plan.outputs.empty() || count > 1) counts[leaf] += count;
    }
  }
  std::erase_if(counts, [](const auto& entry) { return entry.second < 2 || entry.first.size_bytes > kKeptReadBytes; });
  return counts;
}

}  // namespace moeweld::plan
