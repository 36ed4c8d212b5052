#pragma once
/// Bytes of inputs that several operations read, kept between them.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "moeweld/plan/repeated_reads.h"

namespace moeweld::exec {

/// The most that is kept for this plan: what repeats of one group of output files, and of the next one, which is begun while the first
/// ends.
std::uint64_t kept_read_bytes(const plan::MergePlan& plan);

/// Thread-safe.
class KeptReads {
 public:
  using Bytes = std::shared_ptr<const std::vector<std::byte>>;

  explicit KeptReads(const plan::MergePlan& plan) : leaves_(plan::repeated_leaves(plan)) {}

  /// All bytes of a leaf that is read more than once; the first time, and again after they had to make room, `load` fills them. Null: the
  /// leaf is read once.
  Bytes get(const plan::LeafBytes& leaf, const std::function<void(std::vector<std::byte>&)>& load);

 private:
  struct Kept {
    Bytes bytes;
    std::uint64_t last_use = 0;
  };
  void make_room(std::uint64_t num_bytes);

  const std::map<plan::LeafBytes, std::uint32_t> leaves_;
  std::mutex mutex_;  // held while bytes are loaded: whoever wants the same ones waits instead of reading them again
  std::map<plan::LeafBytes, Kept> kept_;
  std::uint64_t kept_bytes_ = 0;
  std::uint64_t num_uses_ = 0;
};

}  // namespace moeweld::exec
