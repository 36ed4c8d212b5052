#include "exec/publish.h"

#include <gtest/gtest.h>

#include "unit/expect_error.h"

namespace moeweld::exec {
namespace {

plan::MergePlan two_files() {
  plan::MergePlan plan;
  plan.output_files = {{"a", "", 3 * kDigestChunkBytes}, {"b", "", 10}};
  return plan;
}

TEST(CombineDigests, OrdersChunksOfAllRanksByPlace) {
  const auto digest = [](unsigned char value) { return Digest{{value}}; };
  const std::vector<RunDigests> runs = {{{0, kDigestChunkBytes, 3 * kDigestChunkBytes}, {digest(2), digest(3)}},
                                        {{1, 0, 10}, {digest(4)}},
                                        {{0, 0, kDigestChunkBytes}, {digest(1)}}};
  const std::vector<Digest> expected = {digest_of_chunks(std::vector{digest(1), digest(2), digest(3)}),
                                        digest_of_chunks(std::vector{digest(4)})};
  EXPECT_EQ(combine_digests(two_files(), runs), expected);
}

TEST(CombineDigests, RefusesAMissingChunk) {
  const std::vector<RunDigests> runs = {{{0, 0, kDigestChunkBytes}, {Digest{}}}, {{1, 0, 10}, {Digest{}}}};
  expect_error([&] { combine_digests(two_files(), runs); }, ErrorCode::kInternal, {"a", "1", "3"});
}

TEST(PartialDirectory, IgnoresTrailingSlashes) {
  EXPECT_EQ(partial_directory("out//"), "out.partial");
  EXPECT_EQ(plain_directory("/"), "/");
}

}  // namespace
}  // namespace moeweld::exec
