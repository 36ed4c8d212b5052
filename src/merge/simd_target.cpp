#include "moeweld/merge/simd_target.h"

#include <cstdint>

#include "hwy/targets.h"
#include "moeweld/base/error.h"

namespace moeweld::merge {

std::vector<std::string> available_simd_targets() {
  static const std::vector<std::string> names = [] {
    hwy::SetSupportedTargetsForTest(0);
    std::vector<std::string> result;
    for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) result.emplace_back(hwy::TargetName(target));
    const std::string baseline = hwy::TargetName(HWY_STATIC_TARGET);
    if (result.empty() || result.back() != baseline) result.push_back(baseline);
    return result;
  }();
  return names;
}

std::string active_simd_target() { return hwy::TargetName(hwy::SupportedAndGeneratedTargets().front()); }

void choose_simd_target(std::string_view name) {
  (void)available_simd_targets();  // asks the processor once, before any restriction
  for (std::int64_t bits = HWY_TARGETS; bits != 0; bits &= bits - 1) {
    const std::int64_t target = bits & -bits;
    if (name != hwy::TargetName(target)) continue;
    hwy::SetSupportedTargetsForTest(0);
    if (target != HWY_STATIC_TARGET && (hwy::SupportedTargets() & target) == 0) break;
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    return;
  }
  std::string known;
  for (const std::string& target : available_simd_targets()) known += (known.empty() ? "" : ", ") + target;
  throw Error(ErrorCode::kUsage, "this processor has no SIMD target '" + std::string(name) + "'; it has " + known + ".");
}

}  // namespace moeweld::merge
