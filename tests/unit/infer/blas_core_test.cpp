#include "moeweld/infer/blas_core.h"

#include <gtest/gtest.h>

#include "unit/expect_error.h"

namespace moeweld::infer {
namespace {

// Which instructions a core uses: OpenBLAS, kernel/x86_64/KERNEL.* and driver/others/dynamic.c.
TEST(BlasCore, OneOfFewerInstructionsThanTheProcessorHasIsReplaced) {
  for (const char* old : {"Prescott", "Nehalem", "Barcelona", "NEOVERSEN1", "unknown"}) {
    EXPECT_EQ(better_blas_core(old, VectorLevel::kAvx512), "SkylakeX") << old;
    EXPECT_EQ(better_blas_core(old, VectorLevel::kAvx2), "Haswell") << old;
    EXPECT_EQ(better_blas_core(old, VectorLevel::kAvx), "Sandybridge") << old;
    EXPECT_EQ(better_blas_core(old, VectorLevel::kOld), "") << old;
  }
  EXPECT_EQ(better_blas_core("Haswell", VectorLevel::kAvx512), "SkylakeX");
  EXPECT_EQ(better_blas_core("Zen", VectorLevel::kAvx512), "SkylakeX");
  EXPECT_EQ(better_blas_core("Sandybridge", VectorLevel::kAvx2), "Haswell");
}

TEST(BlasCore, AGoodChoiceIsLeftAlone) {
  for (const char* core : {"SkylakeX", "Cooperlake", "SapphireRapids"}) EXPECT_EQ(better_blas_core(core, VectorLevel::kAvx512), "") << core;
  for (const char* core : {"Haswell", "Zen", "Excavator", "SkylakeX"}) EXPECT_EQ(better_blas_core(core, VectorLevel::kAvx2), "") << core;
  for (const char* core : {"Sandybridge", "Piledriver", "Haswell"}) EXPECT_EQ(better_blas_core(core, VectorLevel::kAvx), "") << core;
}

TEST(BlasCore, RanksThatRunAnotherAreRefusedByAllWithTheSameWords) {
  run_thread_peers(3, [](Peers& peers) {
    expect_error([&] { agree_on_blas_core(peers, peers.rank() == 2 ? "SkylakeX" : "Haswell"); }, ErrorCode::kPeerFailed,
                 {"rank 0 runs OpenBLAS for Haswell and rank 2 for SkylakeX", "OPENBLAS_CORETYPE"});
  });
  run_thread_peers(3, [](Peers& peers) { EXPECT_NO_THROW(agree_on_blas_core(peers, "Haswell")); });
}

}  // namespace
}  // namespace moeweld::infer
