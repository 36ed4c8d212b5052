#pragma once
/// The records of a journal and their bytes, as docs/journal.md specifies them. Pure: no files.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "exec/prepare.h"
#include "exec/window_writer.h"
#include "moeweld/base/digest.h"
#include "moeweld/merge/task.h"
#include "moeweld/plan/merge_plan.h"

namespace moeweld::exec {

constexpr std::string_view kJournalSchemaName = "moeweld.journal/";
constexpr int kJournalSchemaVersion = 1;

/// What the work depends on; first record of an attempt.
struct WorkIdentity {
  std::string version;  ///< of moeweld
  Digest plan;          ///< plan::identity_digest()
  Digest config;        ///< of the YAML
  std::uint64_t seed = 0;
  struct Input {
    std::string path;
    std::uint64_t size_bytes = 0;
    std::int64_t modified_ns = 0;
    bool operator==(const Input&) const = default;
  };
  std::vector<Input> inputs;
  std::vector<std::uint64_t> output_sizes;  ///< bytes of each output file: a journal can be read without its plan
  bool operator==(const WorkIdentity&) const = default;
};

/// Runs of the output that are on stable storage.
struct FinishedRuns {
  std::vector<RunDigests> runs;
};

/// What a tensor's measurement led to.
struct Decided {
  std::uint32_t operation = 0;
  merge::Decisions decisions;
};

struct DecidedOperations {
  std::vector<Decided> operations;
};

using JournalRecord = std::variant<WorkIdentity, FinishedRuns, DecidedOperations, PreparedSlots>;

/// The line that every journal file begins with.
std::string journal_magic();

/// Magic excluded.
std::vector<std::byte> encode_record(const JournalRecord& record);

/// What one file holds. A file that ends in the middle of a record, or in bytes that are none, was being written when its rank died: what
/// comes before is given, the rest ignored.
struct JournalContent {
  std::vector<JournalRecord> records;
  std::uint64_t ignored_bytes = 0;
};

/// Throws Error(kUnsupported) for a journal of another schema, by name, and Error(kInvalidInput) for a record whose checksum is right and
/// whose content makes no sense.
JournalContent decode_journal(std::span<const std::byte> bytes, const std::string& path);

template <class Archive>
void serialize(Archive& archive, WorkIdentity::Input& input) {
  archive(input.path, input.size_bytes, input.modified_ns);
}
template <class Archive>
void serialize(Archive& archive, WorkIdentity& identity) {
  archive(identity.version, identity.plan, identity.config, identity.seed, identity.inputs, identity.output_sizes);
}
template <class Archive>
void serialize(Archive& archive, FinishedRuns& finished) {
  archive(finished.runs);
}
template <class Archive>
void serialize(Archive& archive, Decided& decided) {
  archive(decided.operation, decided.decisions);
}
template <class Archive>
void serialize(Archive& archive, DecidedOperations& decided) {
  archive(decided.operations);
}

}  // namespace moeweld::exec
