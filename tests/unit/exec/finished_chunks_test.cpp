#include "exec/finished_chunks.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "unit/expect_error.h"

namespace moeweld::exec {
namespace {

constexpr std::uint64_t kMebibyte = 1 << 20;

Digest digest_number(std::uint8_t number) {
  Digest digest;
  digest.bytes.fill(number);
  return digest;
}

TEST(FinishedChunks, NothingIsFinishedAtFirst) {
  const std::vector<std::uint64_t> sizes = {3 * kMebibyte + 5, 0, kMebibyte};
  const FinishedChunks chunks(sizes);
  EXPECT_EQ(chunks.remaining(), (std::vector<plan::FileRun>{{0, 0, 3 * kMebibyte + 5}, {2, 0, kMebibyte}}));
  EXPECT_TRUE(chunks.finished().empty());
  EXPECT_EQ(chunks.finished_bytes(), 0U);
}

TEST(FinishedChunks, NeighboursAreJoinedAndGapsAreLeft) {
  const std::vector<std::uint64_t> sizes = {6 * kMebibyte + 5};
  FinishedChunks chunks(sizes);
  chunks.add({{0, kMebibyte, 2 * kMebibyte}, {digest_number(1)}});
  chunks.add({{0, 5 * kMebibyte, 6 * kMebibyte + 5}, {digest_number(5), digest_number(6)}});
  chunks.add({{0, 2 * kMebibyte, 3 * kMebibyte}, {digest_number(2)}});
  EXPECT_EQ(chunks.remaining(), (std::vector<plan::FileRun>{{0, 0, kMebibyte}, {0, 3 * kMebibyte, 5 * kMebibyte}}));
  const std::vector<RunDigests> finished = chunks.finished();
  ASSERT_EQ(finished.size(), 2U);
  EXPECT_EQ(finished[0].run, (plan::FileRun{0, kMebibyte, 3 * kMebibyte}));
  EXPECT_EQ(finished[0].digests, (std::vector<Digest>{digest_number(1), digest_number(2)}));
  EXPECT_EQ(finished[1].run, (plan::FileRun{0, 5 * kMebibyte, 6 * kMebibyte + 5}));
  EXPECT_EQ(chunks.finished_bytes(), 3 * kMebibyte + 5);
}

TEST(FinishedChunks, AgreesWithASetOfChunksWhateverTheOrder) {
  std::mt19937 generator(7);
  for (int trial = 0; trial < 200; ++trial) {
    const std::vector<std::uint64_t> sizes = {generator() % (20 * kMebibyte) + 1, generator() % (20 * kMebibyte) + 1};
    FinishedChunks chunks(sizes);
    std::set<std::pair<std::uint32_t, std::uint64_t>> reference;
    for (int i = 0; i < 8; ++i) {
      const std::uint32_t file = generator() % 2;
      const std::uint64_t count = (sizes[file] + kMebibyte - 1) / kMebibyte;
      const std::uint64_t first = generator() % count;
      const std::uint64_t end = first + 1 + generator() % (count - first);
      std::vector<Digest> digests;
      for (std::uint64_t chunk = first; chunk < end; ++chunk) {
        digests.push_back(digest_number(static_cast<std::uint8_t>(chunk)));
        reference.insert({file, chunk});
      }
      chunks.add({{file, first * kMebibyte, std::min(end * kMebibyte, sizes[file])}, digests});
    }
    std::set<std::pair<std::uint32_t, std::uint64_t>> left;
    for (const plan::FileRun& run : chunks.remaining()) {
      for (std::uint64_t begin = run.begin; begin < run.end; begin += kMebibyte)
        EXPECT_TRUE(left.insert({run.file, begin / kMebibyte}).second);
    }
    for (std::uint32_t file = 0; file < 2; ++file) {
      for (std::uint64_t chunk = 0; chunk * kMebibyte < sizes[file]; ++chunk) {
        EXPECT_NE(reference.contains({file, chunk}), left.contains({file, chunk})) << trial;
      }
    }
  }
}

TEST(FinishedChunks, RefusesWhatDoesNotFitAndAddsNothing) {
  const std::vector<std::uint64_t> sizes = {2 * kMebibyte + 5};
  FinishedChunks chunks(sizes);
  const auto refused = [&](const RunDigests& run, const std::string& word) {
    expect_error([&] { chunks.add(run); }, ErrorCode::kInvalidInput, {word});
  };
  refused({{1, 0, kMebibyte}, {digest_number(0)}}, "only 1 files");
  refused({{0, 0, 3 * kMebibyte}, {digest_number(0), digest_number(1), digest_number(2)}}, "bytes");
  refused({{0, 0, 0}, {}}, "bytes");
  refused({{0, 5, kMebibyte}, {digest_number(0)}}, "whole chunks");
  refused({{0, 0, kMebibyte + 1}, {digest_number(0), digest_number(1)}}, "whole chunks");
  refused({{0, 0, kMebibyte}, {}}, "0 digests");
  refused({{0, 0, kMebibyte}, {digest_number(0), digest_number(1)}}, "2 digests");
  EXPECT_EQ(chunks.finished_bytes(), 0U);
  chunks.add({{0, 0, kMebibyte}, {digest_number(0)}});
  chunks.add({{0, 0, kMebibyte}, {digest_number(0)}});
  refused({{0, 0, 2 * kMebibyte}, {digest_number(9), digest_number(1)}}, "other bytes");
  EXPECT_EQ(chunks.finished_bytes(), kMebibyte);
}

}  // namespace
}  // namespace moeweld::exec
