#include "moeweld/base/dtype.h"

#include <array>

#include "moeweld/base/error.h"

namespace moeweld {
namespace {

struct DTypeRow {
  DType dtype;
  std::size_t size_bytes;
  std::string_view safetensors;
  std::string_view torch;
};

// In the order of the enumeration, so that a row is found by its value.
constexpr std::array<DTypeRow, 15> kRows{{
    {DType::kF64, 8, "F64", "float64"},
    {DType::kF32, 4, "F32", "float32"},
    {DType::kF16, 2, "F16", "float16"},
    {DType::kBF16, 2, "BF16", "bfloat16"},
    {DType::kF8E4M3, 1, "F8_E4M3", "float8_e4m3fn"},
    {DType::kF8E5M2, 1, "F8_E5M2", "float8_e5m2"},
    {DType::kI64, 8, "I64", "int64"},
    {DType::kI32, 4, "I32", "int32"},
    {DType::kI16, 2, "I16", "int16"},
    {DType::kI8, 1, "I8", "int8"},
    {DType::kU64, 8, "U64", ""},
    {DType::kU32, 4, "U32", ""},
    {DType::kU16, 2, "U16", ""},
    {DType::kU8, 1, "U8", "uint8"},
    {DType::kBool, 1, "BOOL", "bool"},
}};

constexpr bool rows_are_in_order() {
  for (std::size_t i = 0; i < kRows.size(); ++i) {
    if (static_cast<std::size_t>(kRows[i].dtype) != i) return false;
  }
  return true;
}
static_assert(rows_are_in_order());

const DTypeRow& row(DType dtype) { return kRows.at(static_cast<std::size_t>(dtype)); }

}  // namespace

std::size_t size_bytes(DType dtype) { return row(dtype).size_bytes; }

std::string_view name(DType dtype) { return row(dtype).safetensors; }

std::optional<DType> dtype_from_safetensors(std::string_view name) {
  for (const DTypeRow& candidate : kRows) {
    if (candidate.safetensors == name) return candidate.dtype;
  }
  return std::nullopt;
}

std::optional<DType> dtype_from_config(std::string_view name) {
  constexpr std::string_view kPrefix = "torch.";
  if (name.substr(0, kPrefix.size()) == kPrefix) name.remove_prefix(kPrefix.size());
  if (name == "half" || name == "fp16") return DType::kF16;
  if (name == "bf16") return DType::kBF16;
  if (name == "float" || name == "fp32") return DType::kF32;
  if (name == "double" || name == "fp64") return DType::kF64;
  for (const DTypeRow& candidate : kRows) {
    if (is_arithmetic(candidate.dtype) && candidate.torch == name) return candidate.dtype;
  }
  return std::nullopt;
}

std::string_view torch_name(DType dtype) { return row(dtype).torch; }

bool is_arithmetic(DType dtype) { return dtype == DType::kF64 || dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16; }

DType promote(DType a, DType b) {
  if (!is_arithmetic(a) || !is_arithmetic(b)) {
    throw Error(ErrorCode::kInternal, "promotion of " + std::string(name(a)) + " with " + std::string(name(b)) + " is not defined");
  }
  if (a == b) return a;
  if (a == DType::kF64 || b == DType::kF64) return DType::kF64;
  return DType::kF32;
}

bool computes_in_float64(DType output) { return output == DType::kF64 || output == DType::kF32; }

}  // namespace moeweld
