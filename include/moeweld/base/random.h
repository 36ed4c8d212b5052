#pragma once
/// Random numbers that depend on nothing but (seed, stream, element): Philox4x32-10 of Random123. Any rank, thread or vector width that
/// asks for element i of a stream gets the same number.

#include <cstdint>
#include <span>
#include <string_view>

namespace moeweld {

/// A named sequence of random numbers, indexed by element.
struct RandomStream {
  std::uint64_t seed = 0;    ///< --random-seed
  std::uint64_t stream = 0;  ///< stream_id() of what the numbers are for
};

/// 64-bit XXH3 of the name: "tensor name", "tensor name/model index", …
std::uint64_t stream_id(std::string_view name);

/// Uniform in [0, 1) with 24 bits, exactly representable in float32, for element `index`.
float uniform(RandomStream stream, std::uint64_t index);

/// Standard normal for element `index` (Box-Muller in float64 with moeweld's own log, sin and cos).
double normal(RandomStream stream, std::uint64_t index);

/// out[i] = uniform(stream, first + i) or normal(stream, first + i).
void fill_uniform(RandomStream stream, std::uint64_t first, std::span<float> out);
void fill_normal(RandomStream stream, std::uint64_t first, std::span<double> out);

}  // namespace moeweld
