#include "exec/journal.h"

#include <algorithm>
#include <charconv>

#include "exec/clock.h"

namespace moeweld::exec {

namespace {

/// Digests of a petabyte.
constexpr std::uint64_t kLargestJournalBytes = std::uint64_t{64} << 30;
constexpr std::uint64_t kLargestOutputBytes = std::uint64_t{1} << 50;

/// Zeros before it keep a directory's listing in order.
std::string padded(std::uint64_t number, std::size_t width) {
  const std::string digits = std::to_string(number);
  return std::string(width - std::min(width, digits.size()), '0') + digits;
}

/// Attempt of a journal's name, "<attempt>-<rank>"; nothing for other names.
std::optional<std::uint32_t> attempt_of(const std::string& name) {
  std::uint32_t attempt = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), attempt);
  if (error != std::errc() || end == name.data() + name.size() || *end != '-') return std::nullopt;
  return attempt;
}

std::vector<std::byte> read_bytes(Storage& storage, const std::string& path) {
  const std::string text = storage.read_text(path, kLargestJournalBytes);
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

}  // namespace

std::string journal_directory(const std::string& partial) { return partial + "/journal"; }

Journal::Journal(Storage& storage, std::string directory, std::uint32_t attempt, int rank)
    : storage_(storage), directory_(std::move(directory)), name_(padded(attempt, 5) + "-" + padded(static_cast<std::uint64_t>(rank), 6)) {}

void Journal::append(const JournalRecord& record) {
  const auto start = Clock::now();
  std::vector<std::byte> bytes = encode_record(record);
  const std::lock_guard lock(mutex_);
  const bool is_new = file_ == nullptr;
  if (is_new) {
    file_ = storage_.open_output(directory_ + "/" + name_, IoMode::kBuffered);
    const std::string magic = journal_magic();
    const auto first = std::as_bytes(std::span(magic));
    bytes.insert(bytes.begin(), first.begin(), first.end());
  }
  file_->write(position_, bytes);
  file_->sync();
  if (is_new) storage_.sync_directory(directory_);
  position_ += bytes.size();
  seconds_ += seconds_since(start);
}

double Journal::seconds() const {
  const std::lock_guard lock(mutex_);
  return seconds_;
}

std::optional<JournalSummary> read_journals(Storage& storage, const std::string& partial) {
  const std::string directory = journal_directory(partial);
  if (!storage.is_directory(directory)) return std::nullopt;
  std::vector<std::pair<std::string, JournalContent>> files;
  std::uint32_t num_attempts = 0;
  std::optional<WorkIdentity> work;
  for (const DirectoryEntry& entry : storage.list(directory)) {
    const auto attempt = attempt_of(entry.name);
    if (!attempt || entry.is_directory) continue;
    num_attempts = std::max(num_attempts, *attempt);
    const std::string path = directory + "/" + entry.name;
    files.emplace_back(path, decode_journal(read_bytes(storage, path), path));
    for (const JournalRecord& record : files.back().second.records) {
      const auto* identity = std::get_if<WorkIdentity>(&record);
      if (identity == nullptr) continue;
      if (work && *work != *identity) {
        throw Error(ErrorCode::kInvalidInput, "journals of different work lie together. Begin again with --force.", directory);
      }
      work = *identity;
    }
  }
  if (!work) return std::nullopt;
  std::uint64_t output_bytes = 0;
  for (const std::uint64_t size_bytes : work->output_sizes) {
    if (size_bytes > kLargestOutputBytes - output_bytes) {
      throw Error(ErrorCode::kInvalidInput, "the journal names output files of more than a pebibyte. Begin again with --force.", directory);
    }
    output_bytes += size_bytes;
  }
  JournalSummary summary{*work, FinishedChunks(work->output_sizes), {}, {}, num_attempts};
  for (const auto& [path, content] : files) {
    for (const JournalRecord& record : content.records) {
      if (const auto* finished = std::get_if<FinishedRuns>(&record)) {
        for (const RunDigests& run : finished->runs) {
          try {
            summary.finished.add(run);
          } catch (const Error& error) {
            throw Error(ErrorCode::kInvalidInput,
                        "the journal contradicts itself: " + error.problems().front().message + ". Begin again with --force.", path);
          }
        }
      } else if (const auto* decided = std::get_if<DecidedOperations>(&record)) {
        for (const Decided& operation : decided->operations) summary.decided[operation.operation] = operation.decisions;
      } else if (const auto* slots = std::get_if<PreparedSlots>(&record)) {
        summary.slots = *slots;
      }
    }
  }
  return summary;
}

}  // namespace moeweld::exec
