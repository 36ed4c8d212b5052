#include "exec/kept_reads.h"

#include <algorithm>

namespace moeweld::exec {

namespace {

constexpr std::uint64_t kMostKeptBytes = 2 * plan::kKeptReadBytes;

}  // namespace

std::uint64_t kept_read_bytes(const plan::MergePlan& plan) {
  std::uint64_t sum = 0;
  for (const auto& [leaf, count] : plan::repeated_leaves(plan)) sum += leaf.size_bytes;
  return std::min(sum, kMostKeptBytes);
}

KeptReads::Bytes KeptReads::get(const plan::LeafBytes& leaf, const std::function<void(std::vector<std::byte>&)>& load) {
  if (leaves_.empty() || !leaves_.contains(leaf)) return nullptr;
  const std::lock_guard lock(mutex_);
  if (const auto found = kept_.find(leaf); found != kept_.end()) {
    found->second.last_use = ++num_uses_;
    return found->second.bytes;
  }
  make_room(leaf.size_bytes);
  auto bytes = std::make_shared<std::vector<std::byte>>(leaf.size_bytes);
  load(*bytes);
  kept_.emplace(leaf, Kept{bytes, ++num_uses_});
  kept_bytes_ += leaf.size_bytes;
  return bytes;
}

void KeptReads::make_room(std::uint64_t num_bytes) {
  while (!kept_.empty() && kept_bytes_ + num_bytes > kMostKeptBytes) {
    const auto oldest =
        std::min_element(kept_.begin(), kept_.end(), [](const auto& a, const auto& b) { return a.second.last_use < b.second.last_use; });
    kept_bytes_ -= oldest->first.size_bytes;
    kept_.erase(oldest);
  }
}

}  // namespace moeweld::exec
