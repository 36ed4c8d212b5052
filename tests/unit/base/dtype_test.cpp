#include "moeweld/base/dtype.h"

#include <gtest/gtest.h>

#include <string>

#include "moeweld/base/error.h"

namespace moeweld {
namespace {

TEST(DType, SafetensorsNamesGoBothWaysWithTheirSizes) {
  struct Row {
    const char* name;
    std::size_t size_bytes;
  };
  for (const Row& row : {Row{"F64", 8},
                         {"F32", 4},
                         {"F16", 2},
                         {"BF16", 2},
                         {"F8_E4M3", 1},
                         {"F8_E5M2", 1},
                         {"I64", 8},
                         {"I32", 4},
                         {"I16", 2},
                         {"I8", 1},
                         {"U64", 8},
                         {"U32", 4},
                         {"U16", 2},
                         {"U8", 1},
                         {"BOOL", 1}}) {
    const auto dtype = dtype_from_safetensors(row.name);
    ASSERT_TRUE(dtype) << row.name;
    EXPECT_EQ(name(*dtype), row.name);
    EXPECT_EQ(size_bytes(*dtype), row.size_bytes) << row.name;
  }
}

TEST(DType, UnknownNamesAreNothing) {
  for (const char* unknown : {"", "f32", "F4", "F8_E8M0", "F6_E2M3", "C64", "BF16 "})
    EXPECT_FALSE(dtype_from_safetensors(unknown)) << unknown;
  for (const char* unknown : {"", "int8", "float8_e4m3fn", "torch.", "auto", "float128"})
    EXPECT_FALSE(dtype_from_config(unknown)) << unknown;
}

TEST(DType, ConfigsNameTypesInLongAndShortForms) {
  for (const char* text : {"bfloat16", "bf16", "torch.bfloat16"}) EXPECT_EQ(dtype_from_config(text), DType::kBF16) << text;
  for (const char* text : {"float16", "half", "fp16", "torch.float16", "torch.half"})
    EXPECT_EQ(dtype_from_config(text), DType::kF16) << text;
  for (const char* text : {"float32", "float", "fp32", "torch.float32"}) EXPECT_EQ(dtype_from_config(text), DType::kF32) << text;
  for (const char* text : {"float64", "double", "torch.float64"}) EXPECT_EQ(dtype_from_config(text), DType::kF64) << text;
  EXPECT_EQ(torch_name(DType::kBF16), "bfloat16");
}

TEST(DType, PromotesAsTorchDoes) {
  EXPECT_EQ(promote(DType::kBF16, DType::kBF16), DType::kBF16);
  EXPECT_EQ(promote(DType::kBF16, DType::kF16), DType::kF32);
  EXPECT_EQ(promote(DType::kF16, DType::kF32), DType::kF32);
  EXPECT_EQ(promote(DType::kF64, DType::kBF16), DType::kF64);
  EXPECT_THROW(promote(DType::kI8, DType::kF32), Error);
}

TEST(DType, NarrowResultsAreComputedInFloat32) {
  EXPECT_TRUE(computes_in_float64(DType::kF32));
  EXPECT_TRUE(computes_in_float64(DType::kF64));
  EXPECT_FALSE(computes_in_float64(DType::kBF16));
  EXPECT_FALSE(computes_in_float64(DType::kF16));
}

}  // namespace
}  // namespace moeweld
