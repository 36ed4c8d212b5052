#pragma once
/// Journals on disk: one file for each rank of each attempt, in OUT.partial/journal. docs/journal.md is the specification.

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "exec/finished_chunks.h"
#include "exec/journal_record.h"
#include "moeweld/storage/storage.h"

namespace moeweld::exec {

/// The one rank's file that this rank appends to, made with the first record. Thread-safe.
class Journal {
 public:
  /// `directory` exists.
  Journal(Storage& storage, std::string directory, std::uint32_t attempt, int rank);

  /// Returns when the record is on stable storage. Throws what writing throws; the journal must not be used after that.
  void append(const JournalRecord& record);

  double seconds() const;  ///< spent in append()

 private:
  Storage& storage_;
  const std::string directory_;
  const std::string name_;
  mutable std::mutex mutex_;
  std::unique_ptr<OutputFile> file_;
  std::uint64_t position_ = 0;
  double seconds_ = 0;
};

std::string journal_directory(const std::string& partial);

/// All journals of a directory put together.
struct JournalSummary {
  WorkIdentity work;
  FinishedChunks finished;
  std::map<std::uint32_t, merge::Decisions> decided;
  std::optional<PreparedSlots> slots;
  std::uint32_t num_attempts = 0;  ///< the number of the last one
};

/// Nothing if there is no journal, or none that says what the work is: then nothing was begun. Throws Error(kInvalidInput) when records
/// contradict each other, Error(kUnsupported) for another schema.
std::optional<JournalSummary> read_journals(Storage& storage, const std::string& partial);

}  // namespace moeweld::exec
