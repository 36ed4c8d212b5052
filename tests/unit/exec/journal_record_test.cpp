#include "exec/journal_record.h"

#include <gtest/gtest.h>

#include <cstring>

#include "unit/expect_error.h"

namespace moeweld::exec {
namespace {

std::vector<std::byte> journal_of(const std::vector<JournalRecord>& records) {
  const std::string magic = journal_magic();
  const auto first = std::as_bytes(std::span(magic));
  std::vector<std::byte> bytes(first.begin(), first.end());
  for (const JournalRecord& record : records) {
    const std::vector<std::byte> encoded = encode_record(record);
    bytes.insert(bytes.end(), encoded.begin(), encoded.end());
  }
  return bytes;
}

std::vector<JournalRecord> one_of_each() {
  WorkIdentity work;
  work.version = "1.2";
  work.seed = 42;
  work.inputs = {{"a/model.safetensors", 4711, -5}};
  work.output_sizes = {3'000'000, 17};
  FinishedRuns finished;
  finished.runs = {{{1, 0, 17}, {digest_of({})}}};
  PreparedSlots slots;
  slots.rows = {{0.5, -0.25}, {}};
  slots.blas_core = "SkylakeX";
  slots.warnings = {"degenerate"};
  return {work, finished, DecidedOperations{{{7, {{0.125}, {9, 8}}}}}, slots};
}

TEST(JournalRecord, EveryKindReadsBack) {
  const JournalContent content = decode_journal(journal_of(one_of_each()), "j");
  ASSERT_EQ(content.records.size(), 4U);
  EXPECT_EQ(content.ignored_bytes, 0U);
  EXPECT_EQ(std::get<WorkIdentity>(content.records[0]), std::get<WorkIdentity>(one_of_each()[0]));
  const RunDigests& run = std::get<FinishedRuns>(content.records[1]).runs.at(0);
  EXPECT_EQ(run.run, (plan::FileRun{1, 0, 17}));
  EXPECT_EQ(run.digests, std::vector<Digest>{digest_of({})});
  const Decided& decided = std::get<DecidedOperations>(content.records[2]).operations.at(0);
  EXPECT_EQ(decided.operation, 7U);
  EXPECT_EQ(decided.decisions, (merge::Decisions{{0.125}, {9, 8}}));
  const PreparedSlots& slots = std::get<PreparedSlots>(content.records[3]);
  EXPECT_EQ(slots.rows, (std::vector<std::vector<double>>{{0.5, -0.25}, {}}));
  EXPECT_EQ(slots.blas_core, "SkylakeX");
}

// The bytes that docs/journal.md gives, written out by hand.
TEST(JournalRecord, HasTheBytesOfItsSpecification) {
  FinishedRuns finished;
  finished.runs = {{{1, 0, 17}, {Digest{}}}};
  const std::vector<std::byte> bytes = encode_record(finished);
  std::string body;
  const auto u64 = [&](std::uint64_t value) { body.append(reinterpret_cast<const char*>(&value), 8); };
  u64(8 + 4 + 8 + 8 + 8 + 16);  // length of the payload
  body += '\2';                 // FinishedRuns
  u64(1);                       // runs
  body.append("\1\0\0\0", 4);   // file
  u64(0);                       // begin
  u64(17);                      // end
  u64(1);                       // digests
  body.append(16, '\0');
  const Digest digest = digest_of(std::as_bytes(std::span(body)));
  std::string expected(reinterpret_cast<const char*>(digest.bytes.data()), 8);
  expected += body;
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()), expected);
}

TEST(JournalRecord, ATailCutAnywhereLeavesTheRecordsBeforeIt) {
  const std::vector<std::byte> bytes = journal_of(one_of_each());
  const std::size_t last = encode_record(one_of_each().back()).size();
  for (std::size_t cut = 1; cut <= last; ++cut) {
    const JournalContent content = decode_journal(std::span(bytes).first(bytes.size() - cut), "j");
    ASSERT_EQ(content.records.size(), 3U) << cut;
    EXPECT_EQ(content.ignored_bytes, last - cut);
  }
}

TEST(JournalRecord, AFlippedBitEndsTheJournalThere) {
  const std::vector<std::byte> bytes = journal_of(one_of_each());
  for (std::size_t i = journal_magic().size(); i < bytes.size(); ++i) {
    std::vector<std::byte> damaged = bytes;
    damaged[i] ^= std::byte{0x10};
    EXPECT_LT(decode_journal(damaged, "j").records.size(), 4U) << i;
  }
}

TEST(JournalRecord, ZerosAfterTheLastRecordAreNone) {
  std::vector<std::byte> bytes = journal_of(one_of_each());
  bytes.resize(bytes.size() + 4096);
  const JournalContent content = decode_journal(bytes, "j");
  EXPECT_EQ(content.records.size(), 4U);
  EXPECT_EQ(content.ignored_bytes, 4096U);
}

TEST(JournalRecord, AFileWithoutItsFirstLineHoldsNothing) {
  for (const std::string& text : {std::string(), std::string("moeweld.jour"), std::string(20, '\0')}) {
    EXPECT_TRUE(decode_journal(std::as_bytes(std::span(text)), "j").records.empty());
  }
}

TEST(JournalRecord, AnotherSchemaIsRefusedByName) {
  const std::string text = "moeweld.journal/9\nxxxx";
  expect_error([&] { decode_journal(std::as_bytes(std::span(text)), "out.partial/journal/1"); }, ErrorCode::kUnsupported,
               {"moeweld.journal/9", "moeweld.journal/1", "out.partial/journal/1"});
}

TEST(JournalRecord, AnUnknownTypeWithARightChecksumIsRefused) {
  std::vector<std::byte> record = encode_record(FinishedRuns{});
  record[16] = std::byte{99};
  const Digest digest = digest_of(std::span(record).subspan(8));
  std::memcpy(record.data(), digest.bytes.data(), 8);
  std::vector<std::byte> bytes = journal_of({});
  bytes.insert(bytes.end(), record.begin(), record.end());
  expect_error([&] { decode_journal(bytes, "j"); }, ErrorCode::kInvalidInput, {"type 99"});
}

}  // namespace
}  // namespace moeweld::exec
