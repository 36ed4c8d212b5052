#include "exec/restart.h"

#include <algorithm>
#include <span>

#include "exec/publish.h"
#include "moeweld/base/archive.h"
#include "moeweld/base/checked.h"
#include "moeweld/base/digest.h"
#include "moeweld/base/text.h"
#include "moeweld/exec/manifest.h"
#include "moeweld/storage/striping.h"

namespace moeweld::exec {

template <class Archive>
void serialize(Archive& archive, Start& start) {
  archive(start.attempt, start.is_resumed, start.finished_bytes, start.remaining, start.decided, start.slots);
}

namespace {

WorkIdentity identity_of(const plan::MergePlan& plan, const std::string& version) {
  WorkIdentity identity;
  identity.version = version;
  identity.plan = plan::identity_digest(plan);
  identity.config = digest_of(std::as_bytes(std::span(plan.config_text)));
  identity.seed = plan.seed;
  for (const plan::PlannedInputFile& file : plan.input_files) {
    identity.inputs.push_back({file.path, file.identity.size_bytes, file.identity.modified_ns});
  }
  for (const plan::PlannedOutputFile& file : plan.output_files) identity.output_sizes.push_back(file.size_bytes);
  return identity;
}

constexpr std::uint64_t kLargestManifestBytes = kGiB;

std::vector<std::string> places_of(const plan::PlannedOutputFile& file) {
  std::vector<std::string> names = {file.name};
  names.insert(names.end(), file.copies.begin(), file.copies.end());
  return names;
}

/// Of several models, the one that publishing completes last.
std::string last_model(const plan::MergePlan& plan, const std::string& directory) {
  return plan.outputs.empty() ? directory : directory + "/" + plan.outputs.back();
}

/// Returns what the user should know about it.
std::string create_files(Storage& storage, const plan::MergePlan& plan, const std::string& partial, int num_ranks) {
  storage.make_directories(partial);
  std::uint64_t largest = 0;
  for (const plan::PlannedOutputFile& file : plan.output_files) largest = std::max(largest, file.size_bytes);
  const auto num_files = std::max<std::size_t>(1, plan.output_files.size());
  const int ranks_per_file = static_cast<int>((static_cast<std::size_t>(num_ranks) + num_files - 1) / num_files);
  // Directories that are made in it later have its striping, too.
  std::string problem = set_striping(storage, partial, choose_striping(largest, ranks_per_file));
  for (const std::string& output : plan.outputs) storage.make_directories(partial + "/" + output);
  for (const plan::PlannedOutputFile& file : plan.output_files) {
    if (file.own_metadata_bytes != 0) continue;
    for (const std::string& name : places_of(file)) storage.create_sized(partial + "/" + name, file.size_bytes);
  }
  for (const std::string& output : plan.outputs) storage.sync_directory(partial + "/" + output);
  storage.make_directories(journal_directory(partial));
  storage.sync_directory(partial);
  return problem;
}

/// A file that nothing is said to be in may be missing, or have lost its length with the power; one with finished chunks may not.
void require_files(Storage& storage, const plan::MergePlan& plan, const std::string& partial, const FinishedChunks& finished) {
  for (std::uint32_t index = 0; index < plan.output_files.size(); ++index) {
    const plan::PlannedOutputFile& file = plan.output_files[index];
    for (const std::string& name : places_of(file)) {
      const std::string path = partial + "/" + name;
      const auto identity = storage.identity(path);
      if (identity && identity->size_bytes == file.size_bytes) continue;
      if (!finished.is_empty(index)) {
        throw Error(ErrorCode::kInvalidInput,
                    (identity ? "has " + std::to_string(identity->size_bytes) + " bytes where the merge that is to be continued made " +
                                    std::to_string(file.size_bytes)
                              : std::string("is not there, though the journal says that parts of it are written")) +
                        ". Begin again with --force.",
                    path);
      }
      if (file.own_metadata_bytes == 0) storage.create_sized(path, file.size_bytes);
    }
  }
  for (const std::string& output : plan.outputs) storage.sync_directory(partial + "/" + output);
  storage.sync_directory(partial);
}

void require_slots(const plan::MergePlan& plan, const PreparedSlots& slots, const std::string& partial) {
  bool fits = slots.rows.size() == plan.slots.size() && slots.expert_orders.orders.size() == plan.num_orders;
  for (std::size_t i = 0; fits && i < plan.slots.size(); ++i) fits = slots.rows[i].size() == num_elements(plan.slots[i].shape);
  if (!fits)
    throw Error(ErrorCode::kInvalidInput, "the journal's router rows or orders of experts do not fit the plan. Begin again with --force.",
                partial);
}

std::optional<Start> resume(Storage& storage, const plan::MergePlan& plan, const std::string& partial, const WorkIdentity& work) {
  std::optional<JournalSummary> journals = read_journals(storage, partial);
  if (!journals) return std::nullopt;
  if (const std::vector<std::string> all = differences(journals->work, work); !all.empty()) {
    std::string list;
    for (const std::string& difference : all) list += (list.empty() ? "" : "; ") + difference;
    throw Error(ErrorCode::kInvalidInput,
                "holds an interrupted merge that is not this one: " + list + ". Continue it as it was begun, or begin again with --force.",
                partial);
  }
  for (const std::string& output : plan.outputs) storage.make_directories(partial + "/" + output);
  require_files(storage, plan, partial, journals->finished);
  if (journals->slots) require_slots(plan, *journals->slots, partial);
  Start start;
  for (auto& [index, decisions] : journals->decided) {
    if (index >= plan.operations.size()) {
      throw Error(ErrorCode::kInvalidInput, "the journal speaks of more tensors than there are. Begin again with --force.", partial);
    }
    start.decided.push_back({index, std::move(decisions)});
  }
  start.attempt = journals->num_attempts + 1;
  start.is_resumed = true;
  start.finished = journals->finished.finished();
  for (const RunDigests& run : start.finished) {
    start.finished_bytes += (run.run.end - run.run.begin) * plan.output_files[run.run.file].num_places();
  }
  start.remaining = journals->finished.remaining();
  start.slots = std::move(journals->slots);
  return start;
}

/// What lies there without a journal that says what it is holds nothing but the files that execute() begins with.
void require_hardly_begun(Storage& storage, const plan::MergePlan& plan, const std::string& partial) {
  if (!storage.is_directory(partial)) return;
  for (const DirectoryEntry& entry : storage.list(partial)) {
    const bool is_planned =
        std::ranges::any_of(plan.output_files, [&](const auto& file) { return file.name.substr(0, file.name.find('/')) == entry.name; });
    if (is_planned || partial + "/" + entry.name == journal_directory(partial)) continue;
    throw Error(ErrorCode::kInvalidInput,
                "holds '" + printable(entry.name, 100) +
                    "' and no journal, so no interrupted merge can be continued here. Remove it, or begin " + "again with --force.",
                partial);
  }
}

bool was_made_of(Storage& storage, const plan::MergePlan& plan, const std::string& directory) {
  const std::string path = directory + "/" + kManifestName;
  if (!storage.exists(path)) return false;
  try {
    return parse_manifest(storage.read_text(path, kLargestManifestBytes), path).plan_digest == to_hex(plan::identity_digest(plan));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kInvalidInput && error.code() != ErrorCode::kUnsupported) throw;
    return false;
  }
}

}  // namespace

std::vector<std::string> differences(const WorkIdentity& found, const WorkIdentity& wanted) {
  std::vector<std::string> result;
  if (found.version != wanted.version) {
    result.push_back("it was begun by moeweld " + printable(found.version, 60) + ", and this is " + wanted.version);
  }
  if (found.config != wanted.config) result.push_back("the configuration was another one");
  if (found.seed != wanted.seed) {
    result.push_back("its seed was " + std::to_string(found.seed) + ", and now it is " + std::to_string(wanted.seed));
  }
  for (const WorkIdentity::Input& input : wanted.inputs) {
    const auto same = std::ranges::find(found.inputs, input.path, &WorkIdentity::Input::path);
    if (same == found.inputs.end()) {
      result.push_back("it did not read " + printable(input.path, 400));
    } else if (*same != input) {
      result.push_back("the input " + printable(input.path, 400) + " changed since: it had " + std::to_string(same->size_bytes) +
                       " bytes, now it has " + std::to_string(input.size_bytes) + ", or it was written to in between");
    }
  }
  for (const WorkIdentity::Input& input : found.inputs) {
    if (std::ranges::find(wanted.inputs, input.path, &WorkIdentity::Input::path) == wanted.inputs.end()) {
      result.push_back("it read " + printable(input.path, 400));
    }
  }
  if (result.empty() && found != wanted) result.push_back("options that the output depends on (such as --out-shard-size) were others");
  return result;
}

bool is_published(Peers& peers, Storage& storage, const plan::MergePlan& plan, const std::string& output_directory,
                  const ExecuteOptions& options) {
  std::vector<std::byte> answer(1);
  agree_on(peers, [&] {
    if (peers.rank() != 0) return;
    const std::string output = plain_directory(output_directory);
    const std::string partial = partial_directory(output_directory);
    const bool has_partial = storage.exists(partial);
    if (has_partial && was_made_of(storage, plan, last_model(plan, partial)) &&
        (!has_index(plan) || storage.exists(last_model(plan, partial) + "/" + kIndexName)) && !read_journals(storage, partial)) {
      storage.remove_all(journal_directory(partial));
      give_name(storage, output, options.force);
      answer[0] = std::byte{1};
    } else if (!has_partial && storage.is_directory(output) && was_made_of(storage, plan, last_model(plan, output))) {
      answer[0] = std::byte{1};
    }
  });
  peers.broadcast(answer, 0);
  return answer[0] != std::byte{0};
}

void remove_partial(Storage& storage, const std::string& partial) {
  if (!storage.is_directory(partial)) return storage.remove_all(partial);
  // First what only a nearly published merge has: whoever dies on the way must not leave it without a journal, which nothing can continue.
  bool has_removed = false;
  for (const DirectoryEntry& entry : storage.list(partial)) {
    if (entry.is_directory || entry.name.ends_with(".safetensors") || entry.name.ends_with(".h5")) continue;
    storage.remove_all(partial + "/" + entry.name);
    has_removed = true;
  }
  if (has_removed) storage.sync_directory(partial);
  if (storage.is_directory(journal_directory(partial))) {
    storage.remove_all(journal_directory(partial));
    storage.sync_directory(partial);
  }
  storage.remove_all(partial);
}

Start start_or_resume(Peers& peers, Storage& storage, const plan::MergePlan& plan, const std::string& partial,
                      const ExecuteOptions& options) {
  Start start;
  std::vector<std::byte> bytes;
  agree_on(peers, [&] {
    if (peers.rank() != 0) return;
    const WorkIdentity work = identity_of(plan, options.version);
    std::optional<Start> resumed;
    if (options.resume) resumed = resume(storage, plan, partial, work);
    if (!resumed) {
      if (options.resume) require_hardly_begun(storage, plan, partial);
      if (options.force || options.resume) remove_partial(storage, partial);
      start.warning = create_files(storage, plan, partial, peers.size());
      Journal(storage, journal_directory(partial), 0, 0).append(work);
      start.remaining = plan::whole_files(plan);
    } else {
      start = std::move(*resumed);
      // What was read may be in memory alone: the attempt that wrote it may have died before it was synced, and after a loss of power
      // nothing would say whose work the rest is. The same of what other bits of the output depend on, which another processor would
      // compute differently.
      Journal journal(storage, journal_directory(partial), start.attempt++, 0);
      journal.append(work);
      if (start.slots) journal.append(*start.slots);
    }
    bytes = to_archive(start);
  });
  peers.broadcast(bytes, 0);
  if (peers.rank() != 0) start = from_archive<Start>(bytes);
  return start;
}

}  // namespace moeweld::exec
