#include "moeweld/infer/blas_core.h"

#include <cblas.h>

#include <algorithm>
#include <array>

#include "moeweld/base/text.h"

namespace moeweld::infer {
namespace {

struct Core {
  std::string_view name;
  VectorLevel level;
};
/// The x86 cores of OpenBLAS that use AVX or more; all others are older.
constexpr std::array<Core, 10> kCores{{{"Sandybridge", VectorLevel::kAvx},
                                       {"Bulldozer", VectorLevel::kAvx},
                                       {"Piledriver", VectorLevel::kAvx},
                                       {"Steamroller", VectorLevel::kAvx},
                                       {"Excavator", VectorLevel::kAvx2},
                                       {"Haswell", VectorLevel::kAvx2},
                                       {"Zen", VectorLevel::kAvx2},
                                       {"SkylakeX", VectorLevel::kAvx512},
                                       {"Cooperlake", VectorLevel::kAvx512},
                                       {"SapphireRapids", VectorLevel::kAvx512}}};

}  // namespace

#if defined(__x86_64__)
VectorLevel processor_vector_level() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd"))
    return VectorLevel::kAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return VectorLevel::kAvx2;
  return __builtin_cpu_supports("avx") ? VectorLevel::kAvx : VectorLevel::kOld;
}
#else
VectorLevel processor_vector_level() { return VectorLevel::kOld; }
#endif

std::string blas_core() {
  const char* name = openblas_get_corename();
  return name == nullptr ? "unknown" : name;
}

std::string better_blas_core(std::string_view chosen, VectorLevel possible) {
  const auto found = std::find_if(kCores.begin(), kCores.end(), [&](const Core& core) { return core.name == chosen; });
  if (possible <= (found == kCores.end() ? VectorLevel::kOld : found->level)) return {};
  if (possible == VectorLevel::kAvx512) return "SkylakeX";
  return possible == VectorLevel::kAvx2 ? "Haswell" : "Sandybridge";
}

void agree_on_blas_core(Peers& peers, std::string_view mine) {
  const auto all = peers.all_gather(std::as_bytes(std::span(mine.data(), mine.size())));
  ProblemList problems;
  const auto text = [&](std::size_t rank) { return std::string(reinterpret_cast<const char*>(all[rank].data()), all[rank].size()); };
  for (std::size_t rank = 1; rank < all.size(); ++rank) {
    if (text(rank) == text(0)) continue;
    problems.add({ErrorCode::kPeerFailed,
                  "rank 0 runs OpenBLAS for " + printable(text(0), 40) + " and rank " + std::to_string(rank) + " for " +
                      printable(text(rank), 40) +
                      ": their matrix products would differ in the last bits. Set OPENBLAS_CORETYPE to the older of the two for all ranks.",
                  {},
                  0,
                  {}});
    break;
  }
  agree(peers, problems);
}

}  // namespace moeweld::infer
