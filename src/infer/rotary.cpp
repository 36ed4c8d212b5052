#include "infer/rotary.h"

#include <algorithm>
#include <cmath>

#include "moeweld/base/elementary.h"

namespace moeweld::infer {
namespace {

constexpr double kPi = 3.14159265358979323846;

double power(double base, double exponent) { return exact_exp(exponent * exact_log(base)); }

/// Where, as a real index of a pair, a frequency turns `rotations` times over the original context.
double correction_index(double rotations, const model::RopeSpec& rope) {
  const auto dim = static_cast<double>(rope.rotary_dim);
  return dim * exact_log(static_cast<double>(rope.original_max_positions) / (rotations * 2 * kPi)) / (2 * exact_log(rope.theta));
}

/// YaRN: 1 where the frequency is kept (extrapolated), 0 where it is divided by the factor (interpolated), a ramp between.
double kept_share(const model::RopeSpec& rope, std::size_t pair) {
  double low = correction_index(rope.beta_fast, rope);
  double high = correction_index(rope.beta_slow, rope);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(rope.rotary_dim) - 1);
  if (low == high) high += 0.001;
  return 1.0 - std::clamp((static_cast<double>(pair) - low) / (high - low), 0.0, 1.0);
}

double llama3_frequency(const model::RopeSpec& rope, double frequency) {
  const auto original = static_cast<double>(rope.original_max_positions);
  const double wavelength = 2 * kPi / frequency;
  if (wavelength < original / rope.high_freq_factor) return frequency;
  if (wavelength > original / rope.low_freq_factor) return frequency / rope.factor;
  const double smooth = (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return (1 - smooth) * frequency / rope.factor + smooth * frequency;
}

}  // namespace

std::vector<float> rotary_frequencies(const model::RopeSpec& rope, std::uint64_t length) {
  const auto dim = static_cast<double>(rope.rotary_dim);
  double theta = rope.theta;
  if (rope.type == model::RopeType::kDynamic && length > rope.max_positions && rope.rotary_dim > 2) {
    const double stretch = rope.factor * static_cast<double>(length) / static_cast<double>(rope.max_positions) - (rope.factor - 1);
    theta *= power(stretch, dim / (dim - 2));
  }
  std::vector<float> result;
  for (std::size_t pair = 0; pair < rope.rotary_dim / 2; ++pair) {
    double frequency = 1.0 / power(theta, 2.0 * static_cast<double>(pair) / dim);
    switch (rope.type) {
      case model::RopeType::kDefault:
      case model::RopeType::kDynamic:
        break;
      case model::RopeType::kLinear:
        frequency /= rope.factor;
        break;
      case model::RopeType::kYarn: {
        const double kept = kept_share(rope, pair);
        frequency = frequency / rope.factor * (1 - kept) + frequency * kept;
        break;
      }
      case model::RopeType::kLlama3:
        frequency = llama3_frequency(rope, frequency);
        break;
    }
    result.push_back(static_cast<float>(frequency));
  }
  return result;
}

RotaryTable::RotaryTable(const model::RopeSpec& rope, std::uint64_t length)
    : length_(length), half_(rope.rotary_dim / 2), cosines_(length * half_), sines_(length * half_) {
  const std::vector<float> frequencies = rotary_frequencies(rope, length);
  for (std::uint64_t position = 0; position < length; ++position) {
    for (std::size_t pair = 0; pair < half_; ++pair) {
      // The angle is a float32 product in transformers, and models are trained with that.
      const double angle = static_cast<float>(position) * frequencies[pair];
      cosines_[position * half_ + pair] = static_cast<float>(exact_cos(angle) * rope.attention_factor);
      sines_[position * half_ + pair] = static_cast<float>(exact_sin(angle) * rope.attention_factor);
    }
  }
}

void RotaryTable::rotate(std::uint64_t position, float* head) const {
  const float* cosines = cosines_.data() + position * half_;
  const float* sines = sines_.data() + position * half_;
  for (std::size_t pair = 0; pair < half_; ++pair) {
    const float a = head[pair];
    const float b = head[pair + half_];
    head[pair] = a * cosines[pair] - b * sines[pair];
    head[pair + half_] = b * cosines[pair] + a * sines[pair];
  }
}

}  // namespace moeweld::infer
