#include "moeweld/infer/blas_core.h"

#include <cblas.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "moeweld/base/text.h"

namespace moeweld::infer {
namespace {

enum Level : int { kOld, kAvx, kAvx2, kAvx512 };

struct Core {
  std::string_view name;
  Level level;
};
/// The x86 cores of OpenBLAS that use AVX or more; all others are older.
constexpr std::array<Core, 10> kCores{{{"Sandybridge", kAvx},
                                       {"Bulldozer", kAvx},
                                       {"Piledriver", kAvx},
                                       {"Steamroller", kAvx},
                                       {"Excavator", kAvx2},
                                       {"Haswell", kAvx2},
                                       {"Zen", kAvx2},
                                       {"SkylakeX", kAvx512},
                                       {"Cooperlake", kAvx512},
                                       {"SapphireRapids", kAvx512}}};

#if defined(__x86_64__)
Level processor_level() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd"))
    return kAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kAvx2;
  return __builtin_cpu_supports("avx") ? kAvx : kOld;
}
#else
Level processor_level() { return kOld; }
#endif

}  // namespace

std::string blas_core() {
  const char* name = openblas_get_corename();
  return name == nullptr ? "unknown" : name;
}

std::string better_blas_core() {
  const std::string name = blas_core();
  const auto found = std::find_if(kCores.begin(), kCores.end(), [&](const Core& core) { return core.name == name; });
  const Level chosen = found == kCores.end() ? kOld : found->level;
  const Level possible = processor_level();
  if (possible <= chosen) return {};
  if (possible == kAvx512) return "SkylakeX";
  return possible == kAvx2 ? "Haswell" : "Sandybridge";
}

void agree_on_blas_core(Peers& peers) {
  const std::string mine = blas_core();
  const auto all = peers.all_gather(std::as_bytes(std::span(mine)));
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
