#pragma once
/// Input files of a plan, open while they are read.

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "exec/kept_reads.h"
#include "moeweld/plan/merge_plan.h"
#include "moeweld/storage/storage.h"

namespace moeweld::exec {

/// Input files of a plan, opened when first read and checked against what the plan saw. Keeps at most a few dozen open.
/// Thread-safe.
class InputFiles {
 public:
  InputFiles(Storage& storage, const plan::MergePlan& plan, IoMode mode) : storage_(storage), plan_(plan), mode_(mode), kept_(plan) {}

  /// Throws Error(kInvalidInput) if size or modification time is no longer what the plan saw.
  std::shared_ptr<InputFile> open(std::uint32_t file);

  /// What several operations read.
  KeptReads& kept() { return kept_; }

 private:
  Storage& storage_;
  const plan::MergePlan& plan_;
  IoMode mode_;
  std::mutex mutex_;
  std::unordered_map<std::uint32_t, std::shared_ptr<InputFile>> open_;
  std::deque<std::uint32_t> order_;
  KeptReads kept_;
};

}  // namespace moeweld::exec
