#pragma once
/// Element types of checkpoints, by their safetensors names.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace moeweld {

enum class DType : std::uint8_t { kF64, kF32, kF16, kBF16, kF8E4M3, kF8E5M2, kI64, kI32, kI16, kI8, kU64, kU32, kU16, kU8, kBool };

/// Rows and columns of a matrix that share one scale in block-scaled FP8. The last block of each row and column is cut off.
constexpr std::uint64_t kScaleBlock = 128;

/// Bytes of one element.
std::size_t size_bytes(DType dtype);

/// safetensors name: "F32", "BF16", "F8_E4M3", "BOOL", …
std::string_view name(DType dtype);

/// From the safetensors name; nothing if unknown (sub-byte and microscaling types among them).
std::optional<DType> dtype_from_safetensors(std::string_view name);

/// From what configs say: "float32", "bfloat16", "float16", "float64" and their short forms ("bf16", "half", …), with or without "torch.".
std::optional<DType> dtype_from_config(std::string_view name);

/// Name that config.json uses: "bfloat16", "float32", …; empty for types that it cannot name.
std::string_view torch_name(DType dtype);

/// F64, F32, F16 and BF16: the types moeweld computes with.
bool is_arithmetic(DType dtype);

/// The type that holds both, as torch promotes: equal types stay, BF16 with F16 gives F32, else the wider. Both must be arithmetic.
DType promote(DType a, DType b);

/// Whether results of this type are computed in float64 (F64 and F32) rather than float32 (F16 and BF16).
bool computes_in_float64(DType output);

}  // namespace moeweld
