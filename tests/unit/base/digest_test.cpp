#include "moeweld/base/digest.h"

#include <gtest/gtest.h>

#include <string_view>

namespace moeweld {
namespace {

Digest of(std::string_view text) { return digest_of(std::as_bytes(std::span(text))); }

// Expected values: xxh3_128_hexdigest of the Python package xxhash.
TEST(Digest, IsXxh3With128Bits) {
  EXPECT_EQ(to_hex(of("")), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(to_hex(of("moeweld")), "948e722ea04dfef50f8c4f569d49486c");
  EXPECT_EQ(to_hex(of(std::string(1000, 'x'))), "50a1af5a5f2dcf01c0a4877b962cba82");
}

TEST(Digest, OfChunksIsTheDigestOfTheirConcatenatedDigests) {
  const std::vector<Digest> chunks = {of("first"), of("second")};
  std::vector<std::uint8_t> joined(chunks[0].bytes.begin(), chunks[0].bytes.end());
  joined.insert(joined.end(), chunks[1].bytes.begin(), chunks[1].bytes.end());
  EXPECT_EQ(digest_of_chunks(chunks), digest_of(std::as_bytes(std::span(joined))));
  EXPECT_EQ(digest_of_chunks({}), of(""));
}

}  // namespace
}  // namespace moeweld
