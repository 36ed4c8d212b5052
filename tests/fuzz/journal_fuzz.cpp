/// Any bytes in a journal's place are read, ignored from some record on, or refused with Error that names the file; what is read reads
/// back.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <variant>
#include <vector>

#include "exec/journal.h"
#include "moeweld/base/digest.h"
#include "moeweld/base/error.h"
#include "support/simulated_storage.h"

namespace {

using namespace moeweld;
using namespace moeweld::exec;

/// More would be vectors of gigabytes for the chunks, as they should be.
constexpr std::uint64_t kLargestOutputBytes = std::uint64_t{1} << 36;

/// The bytes as they are, or with right checksums put before them: a fuzzer would never find one. Then they are records of a type (1 byte),
/// a length (2 bytes, little-endian) and a payload.
std::string journal_of(const std::uint8_t* data, std::size_t size_bytes) {
  std::string result = journal_magic();
  const std::string all(reinterpret_cast<const char*>(data) + 1, size_bytes - 1);
  if (data[0] == 'r') return result + all;
  for (std::size_t at = 0; at + 3 <= all.size();) {
    const auto byte = [&](std::size_t index) { return static_cast<unsigned char>(all[index]); };
    const std::string payload = all.substr(at + 3, byte(at + 1) + 256U * byte(at + 2));
    std::string body(8, '\0');
    for (std::size_t i = 0; i < 8; ++i) body[i] = static_cast<char>(std::uint64_t{payload.size()} >> (8 * i));
    body += all[at] + payload;
    const Digest digest = digest_of(std::as_bytes(std::span(body)));
    result.append(reinterpret_cast<const char*>(digest.bytes.data()), 8);
    result += body;
    at += 3 + payload.size();
  }
  return result;
}

bool is_too_large(const JournalContent& content) {
  for (const JournalRecord& record : content.records) {
    if (const auto* work = std::get_if<WorkIdentity>(&record)) {
      for (const std::uint64_t size : work->output_sizes) {
        if (size > kLargestOutputBytes / 16 || work->output_sizes.size() > 16) return true;
      }
    }
  }
  return false;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size_bytes) {
  if (size_bytes == 0) return 0;
  const std::string text = journal_of(data, size_bytes);
  const std::string directory = "/out.partial/journal";
  try {
    const JournalContent content = decode_journal(std::as_bytes(std::span(text)), directory);
    if (is_too_large(content)) return 0;
    for (const JournalRecord& record : content.records) {
      const std::string magic = journal_magic();
      std::vector<std::byte> again = encode_record(record);
      again.insert(again.begin(), reinterpret_cast<const std::byte*>(magic.data()),
                   reinterpret_cast<const std::byte*>(magic.data()) + magic.size());
      if (decode_journal(again, "again").records.size() != 1) std::abort();
    }
    const std::map<std::string, std::string> none;
    testing_support::SimulatedStorage storage(none, 0);
    storage.make_directories(directory);
    storage.open_output(directory + "/00001-000000", IoMode::kBuffered)->write(0, std::as_bytes(std::span(text)));
    const auto journals = read_journals(storage, "/out.partial");
    if (journals && journals->finished.finished_bytes() > kLargestOutputBytes) std::abort();
  } catch (const Error& error) {
    if (error.problems().empty() || !error.problems().front().path.starts_with(directory)) std::abort();
  }
  return 0;
}
