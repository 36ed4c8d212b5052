#include "moeweld/base/random.h"

#include <Random123/philox.h>
#include <xxhash.h>

#include <array>
#include <cmath>
#include <cstddef>

#include "moeweld/base/elementary.h"

namespace moeweld {
namespace {

// Uniform and normal numbers of one stream come from different halves of the counter space.
constexpr std::uint64_t kNormalDomain = std::uint64_t{1} << 63;

std::array<std::uint32_t, 4> philox(RandomStream stream, std::uint64_t block) {
  const r123::Philox4x32 generator;
  r123::Philox4x32::ctr_type counter{};
  counter[0] = static_cast<std::uint32_t>(block);
  counter[1] = static_cast<std::uint32_t>(block >> 32);
  counter[2] = static_cast<std::uint32_t>(stream.stream);
  counter[3] = static_cast<std::uint32_t>(stream.stream >> 32);
  r123::Philox4x32::key_type key{};
  key[0] = static_cast<std::uint32_t>(stream.seed);
  key[1] = static_cast<std::uint32_t>(stream.seed >> 32);
  const auto result = generator(counter, key);
  return {result[0], result[1], result[2], result[3]};
}

float to_unit_float(std::uint32_t bits) { return static_cast<float>(bits >> 8) * 0x1p-24F; }

double to_unit_double(std::uint32_t low, std::uint32_t high) {
  const std::uint64_t bits = (std::uint64_t{high} << 32 | low) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

// Elements 2b and 2b + 1 are the two normals that Box and Muller make of block b.
std::array<double, 2> normal_pair(RandomStream stream, std::uint64_t block) {
  const auto words = philox(stream, block | kNormalDomain);
  const double radius_uniform = 1.0 - to_unit_double(words[0], words[1]);  // in (0, 1], so that the logarithm is finite
  const double angle = 6.283185307179586476925286766559 * to_unit_double(words[2], words[3]);
  const double radius = std::sqrt(-2.0 * exact_log(radius_uniform));
  return {radius * exact_cos(angle), radius * exact_sin(angle)};
}

}  // namespace

std::uint64_t stream_id(std::string_view name) { return XXH3_64bits(name.data(), name.size()); }

float uniform(RandomStream stream, std::uint64_t index) { return to_unit_float(philox(stream, index / 4)[index % 4]); }

double normal(RandomStream stream, std::uint64_t index) { return normal_pair(stream, index / 2)[index % 2]; }

void fill_uniform(RandomStream stream, std::uint64_t first, std::span<float> out) {
  std::array<std::uint32_t, 4> words{};
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::uint64_t index = first + i;
    if (i == 0 || index % 4 == 0) words = philox(stream, index / 4);
    out[i] = to_unit_float(words[index % 4]);
  }
}

void fill_normal(RandomStream stream, std::uint64_t first, std::span<double> out) {
  std::array<double, 2> pair{};
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::uint64_t index = first + i;
    if (i == 0 || index % 2 == 0) pair = normal_pair(stream, index / 2);
    out[i] = pair[index % 2];
  }
}

}  // namespace moeweld
