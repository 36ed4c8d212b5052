#pragma once
/// What happens to activations between matrix products. Each is the same for any number of threads.

#include <span>

#include "infer/plane.h"
#include "moeweld/model/transformer.h"

namespace moeweld::infer {

/// x / √(mean(x²) + epsilon) · weight over one row, as transformers' RMSNorm; the sum in float64.
void rms_norm(std::span<const float> row, std::span<const float> weight, double epsilon, float* result);

/// rms_norm of every row.
void rms_norm(const Plane& input, std::span<const float> weight, double epsilon, int threads, Plane& result);

/// stream += multiplier · addend
void add_scaled(const Plane& addend, double multiplier, int threads, Plane& stream);

float activate(model::Activation activation, float value);
float sigmoid(float value);

bool all_finite(std::span<const float> values);

}  // namespace moeweld::infer
