#pragma once
/// What the pipeline's times are read from.

#include <chrono>

namespace moeweld::exec {

using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

}  // namespace moeweld::exec
