#include "exec/journal_record.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "moeweld/base/archive.h"
#include "moeweld/base/error.h"
#include "moeweld/base/text.h"

namespace moeweld::exec {

namespace {

constexpr std::size_t kChecksumBytes = 8;
constexpr std::size_t kLengthBytes = 8;
constexpr std::size_t kTypeBytes = 1;
constexpr std::size_t kHeaderBytes = kChecksumBytes + kLengthBytes + kTypeBytes;
/// Types are positions in JournalRecord, from 1 on: eight zero bytes are no record.
constexpr std::uint8_t kFirstType = 1;

std::uint64_t read_u64(std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

std::span<const std::byte> checksum_of(const Digest& digest) { return std::as_bytes(std::span(digest.bytes)).first(kChecksumBytes); }

template <std::size_t kIndex = 0>
JournalRecord decode_payload(std::size_t index, std::span<const std::byte> payload) {
  if constexpr (kIndex < std::variant_size_v<JournalRecord>) {
    if (index != kIndex) return decode_payload<kIndex + 1>(index, payload);
    return from_archive<std::variant_alternative_t<kIndex, JournalRecord>>(payload);
  } else {
    throw Error(ErrorCode::kInternal, "a record has type " + std::to_string(index + kFirstType) + ", which this version does not know");
  }
}

}  // namespace

std::string journal_magic() { return std::string(kJournalSchemaName) + std::to_string(kJournalSchemaVersion) + "\n"; }

std::vector<std::byte> encode_record(const JournalRecord& record) {
  const std::vector<std::byte> payload = std::visit([](const auto& value) { return to_archive(value); }, record);
  std::vector<std::byte> bytes(kHeaderBytes + payload.size());
  const std::uint64_t length = payload.size();
  std::memcpy(bytes.data() + kChecksumBytes, &length, kLengthBytes);
  bytes[kChecksumBytes + kLengthBytes] = static_cast<std::byte>(record.index() + kFirstType);
  std::copy(payload.begin(), payload.end(), bytes.begin() + kHeaderBytes);
  const Digest digest = digest_of(std::span(bytes).subspan(kChecksumBytes));
  std::ranges::copy(checksum_of(digest), bytes.begin());
  return bytes;
}

JournalContent decode_journal(std::span<const std::byte> bytes, const std::string& path) {
  JournalContent content;
  const std::string magic = journal_magic();
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), std::min<std::size_t>(bytes.size(), 40));
  if (!text.starts_with(magic)) {
    if (text.starts_with(kJournalSchemaName) && text.find('\n') != std::string_view::npos) {
      throw Error(ErrorCode::kUnsupported,
                  "has schema \"" + printable(text.substr(0, text.find('\n')), 40) + "\", and this version of moeweld reads \"" +
                      magic.substr(0, magic.size() - 1) + "\". Continue with the version that began, or begin again with --force.",
                  path);
    }
    content.ignored_bytes = bytes.size();
    return content;
  }
  bytes = bytes.subspan(magic.size());
  while (bytes.size() >= kHeaderBytes) {
    const std::uint64_t length = read_u64(bytes.subspan(kChecksumBytes));
    if (length > bytes.size() - kHeaderBytes) break;
    const std::span<const std::byte> record = bytes.first(kHeaderBytes + static_cast<std::size_t>(length));
    if (!std::ranges::equal(checksum_of(digest_of(record.subspan(kChecksumBytes))), record.first(kChecksumBytes))) break;
    try {
      const auto type = static_cast<std::size_t>(record[kChecksumBytes + kLengthBytes]);
      if (type < kFirstType) throw Error(ErrorCode::kInternal, "a record has type 0");
      content.records.push_back(decode_payload(type - kFirstType, record.subspan(kHeaderBytes)));
    } catch (const Error& error) {
      throw Error(
          ErrorCode::kInvalidInput,
          "is not a journal that this version of moeweld wrote: " + error.problems().front().message + ". Begin again with --force.", path);
    }
    bytes = bytes.subspan(record.size());
  }
  content.ignored_bytes = bytes.size();
  return content;
}

}  // namespace moeweld::exec
