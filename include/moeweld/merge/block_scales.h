#pragma once
/// Block-scaled FP8: codes of E4M3FN (four exponent bits, bias 7, three fraction bits, no infinity, NaN where all seven bits are set;
/// Micikevicius et al. 2022) times one float32 scale for 128 x 128 elements.

#include <cstddef>
#include <cstdint>
#include <span>

#include "moeweld/base/dtype.h"

namespace moeweld::merge {

/// Largest finite value of E4M3FN.
constexpr float kLargestE4M3 = 448.0F;

constexpr std::uint64_t num_scale_blocks(std::uint64_t extent) { return extent / kScaleBlock + (extent % kScaleBlock != 0 ? 1 : 0); }

/// Part of one row of a matrix, from column `first_column` on: values[i] is the float32 value of codes[i] times the scale of its block,
/// rounded once; `row_scales` are those of the whole row, from column 0 on. Every NaN is the positive quiet one. Returns how many codes are
/// NaN. Thread-safe, as all functions here.
std::uint64_t decode_block_scaled(const std::byte* codes, std::uint64_t first_column, const float* row_scales, std::span<float> values);

/// Raises row_maxima[block] to the largest finite magnitude of the block's values.
void raise_block_maxima(std::span<const float> values, std::uint64_t first_column, float* row_maxima);

/// The scale of a block whose largest magnitude is `maximum`: maximum / 448, but at least the smallest normal float32, so that a block of
/// zeros has one, too.
float block_scale(float maximum);

/// codes[i] = values[i] / scale of its block, rounded to nearest even, at most 448 in magnitude. NaN and infinity become code 0x7F.
void encode_block_scaled(std::span<const float> values, std::uint64_t first_column, const float* row_scales, std::byte* codes);

}  // namespace moeweld::merge
