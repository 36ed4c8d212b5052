#pragma once
/// The beginning of execute(): OUT.partial is made, or found as an interrupted run left it.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "exec/journal.h"
#include "moeweld/base/peers.h"
#include "moeweld/exec/execute.h"

namespace moeweld::exec {

/// Where this run begins; the same on every rank.
struct Start {
  std::uint32_t attempt = 1;
  bool is_resumed = false;
  std::uint64_t finished_bytes = 0;
  std::vector<plan::FileRun> remaining;
  std::vector<Decided> decided;
  std::optional<PreparedSlots> slots;
  std::vector<RunDigests> finished;  ///< on rank 0 alone
  std::string warning;               ///< on rank 0: the striping that was wanted could not be set
};

/// Makes OUT.partial with its files and a journal that says what the work is, or with options.resume continues the one that is there. What
/// it holds for other work is refused, and it stays. Collective; throws the same Error on every rank.
Start start_or_resume(Peers& peers, Storage& storage, const plan::MergePlan& plan, const std::string& partial,
                      const ExecuteOptions& options);

/// Every way in which the work of a journal differs from `wanted`, as a user would say it. Pure.
std::vector<std::string> differences(const WorkIdentity& found, const WorkIdentity& wanted);

/// Removes OUT.partial so that no moment shows a journal beside files that it does not speak of.
void remove_partial(Storage& storage, const std::string& partial);

}  // namespace moeweld::exec
