#include <algorithm>

#include "exec/buffers.h"
#include "exec/hidden_rows.h"
#include "exec/publish.h"
#include "exec/unchanged_inputs.h"
#include "moeweld/base/checked.h"
#include "moeweld/base/text.h"
#include "moeweld/exec/execute.h"
#include "moeweld/exec/status.h"
#include "moeweld/infer/forward.h"
#include "moeweld/storage/job_lock.h"

namespace moeweld::exec {

namespace {

std::string parent_of(const std::string& directory) {
  const std::size_t slash = directory.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : directory.substr(0, slash);
}

/// The nearest ancestor that exists: OUT's missing parents are created.
std::string existing_ancestor(Storage& storage, std::string directory) {
  while (!storage.exists(directory) && directory != "." && directory != "/") directory = parent_of(directory);
  return directory;
}

void check_output(Storage& storage, const plan::MergePlan& plan, const std::string& output, const ExecuteOptions& options,
                  ProblemList& problems) {
  if (storage.exists(output) && !options.force) {
    problems.add(Problem{ErrorCode::kOutputExists, "exists already. Choose another name, or replace it with --force.", output});
  }
  const std::string partial = partial_directory(output);
  if (const auto lock = look_at_lock(lock_path(output)); lock && !lock->is_dead) {
    problems.add(Problem{ErrorCode::kOutputExists,
                         "another job is writing it: " + lock->describe() + ". Wait for it, end it, or choose another name.", partial});
  } else if (storage.exists(partial) && !options.force && !options.resume) {
    problems.add(
        Problem{ErrorCode::kOutputExists,
                "exists: another job was ended while it wrote it. Continue it with --resume, or remove it or use --force to begin again.",
                partial});
  }
  const std::string parent = existing_ancestor(storage, parent_of(output));
  if (!storage.is_directory(parent)) {
    problems.add(Problem{ErrorCode::kIo, "is not a directory, so '" + output + "' cannot be created in it", parent});
    return;
  }
  if (!storage.is_writable_directory(parent)) {
    problems.add(Problem{
        ErrorCode::kIo, "no file can be created here, so '" + output + "' cannot be written. Check permissions, quota and mount.", parent});
    return;
  }
  std::uint64_t needed = plan.output_bytes();
  for (const plan::PlannedOutputFile& file : plan.output_files) {
    // Made by the run that is continued, which had its space reserved.
    const auto identity = options.resume ? storage.identity(partial + "/" + file.name) : std::nullopt;
    if (identity && identity->size_bytes == file.size_bytes) needed -= file.size_bytes;
  }
  for (const plan::AuxiliaryFile& file : plan.auxiliary_files) {
    if (file.action == plan::AuxiliaryFile::Action::kWrite) needed += file.content.size();
    if (file.action == plan::AuxiliaryFile::Action::kCopy) {
      if (const auto identity = storage.identity(file.source)) needed += identity->size_bytes;
    }
  }
  const SpaceInfo space = storage.space(parent);
  if (space.available_bytes < needed) {
    problems.add(Problem{ErrorCode::kNoSpace,
                         "the output needs " + format_bytes(needed) + ", and this " + space.file_system + " file system has " +
                             format_bytes(space.available_bytes) + " free",
                         parent});
  }
}

/// Router rows from a forward pass need memory of their own, before the merge's buffers are there.
void check_forward_memory(const plan::MergePlan& plan, const ExecuteOptions& options, int num_ranks, ProblemList& problems) {
  for (const plan::Slot& slot : plan.slots) {
    if (slot.kind != plan::Slot::Kind::kHiddenRouter) continue;
    infer::ForwardOptions forward;
    forward.memory_limit_bytes = 0;  // the smallest buffers
    forward.threads = std::max(1, options.threads);
    const std::uint64_t needed = slot.size_bytes() + infer::minimum_forward_bytes(slot.base, distinct_prompts(slot), forward, num_ranks);
    if (needed <= options.memory_limit_bytes) continue;
    problems.add(Problem{ErrorCode::kUsage,
                         "a memory limit of " + format_memory(options.memory_limit_bytes) + " per rank is too small for the " + slot.name +
                             "; they need at least " + format_memory(round_up(needed, kMiB)) + " (--memory-limit)",
                         {}});
  }
}

}  // namespace

void preflight(Peers& peers, Storage& storage, const plan::MergePlan& plan, const std::string& output_directory,
               const ExecuteOptions& options) {
  ProblemList problems;
  problems.attempt([&] { plan_buffers(plan, options.memory_limit_bytes, options.threads, options.gather_statistics); });
  check_forward_memory(plan, options, peers.size(), problems);
  // One rank asks the file system; a thousand asking at once would be a problem of its own.
  if (peers.rank() == 0) {
    problems.attempt([&] { check_output(storage, plan, plain_directory(output_directory), options, problems); });
    problems.attempt([&] { require_unchanged_inputs(storage, plan, "the merge was planned"); });
  }
  agree(peers, problems);
}

}  // namespace moeweld::exec
