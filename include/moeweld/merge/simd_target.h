#pragma once
/// Which vector instructions the kernels use. Results do not depend on it; speed does, and tests choose each.

#include <string>
#include <string_view>
#include <vector>

namespace moeweld::merge {

/// Name of the best target this processor has among those allowed: "AVX3_DL", "AVX3", "AVX2", "SSE4", "SSSE3", "SSE2", "NEON", ….
std::string active_simd_target();

/// Names that choose_simd_target accepts on this processor.
std::vector<std::string> available_simd_targets();

/// Restricts the kernels to one target. Throws Error(kUsage) if the processor or the build does not have it. Not thread-safe; call before
/// work starts.
void choose_simd_target(std::string_view name);

}  // namespace moeweld::merge
