#include "model/config_defaults.h"

#include <array>

namespace moeweld::model {

const ConfigDefaults* find_defaults(std::string_view model_type) {
  // type, vocabulary, hidden, intermediate, layers, heads, key heads, head_dim, positions, eps, window, bos, eos, experts per token
  static constexpr std::array<ConfigDefaults, 12> kRows{{
      {"llama", 32000, 4096, 11008, 32, 32, 0, 0, 2048, 1e-6, 0, 1, 2, 0},
      {"mistral", 32000, 4096, 14336, 32, 32, 8, 0, 131072, 1e-6, 4096, 1, 2, 0},
      {"mixtral", 32000, 4096, 14336, 32, 32, 8, 0, 131072, 1e-5, 0, 1, 2, 2},
      {"qwen2", 151936, 4096, 22016, 32, 32, 32, 0, 32768, 1e-6, 4096, -1, -1, 0},
      {"qwen3", 151936, 4096, 22016, 32, 32, 32, 128, 32768, 1e-6, 4096, -1, -1, 0},
      {"qwen2_moe", 151936, 2048, 5632, 24, 16, 16, 0, 32768, 1e-6, 4096, -1, -1, 4},
      {"qwen3_moe", 151936, 2048, 6144, 24, 32, 4, 0, 32768, 1e-6, 4096, -1, -1, 8},
      {"deepseek", 102400, 4096, 11008, 30, 32, 0, 0, 2048, 1e-6, 0, 100000, 100001, 0},
      {"olmoe", 50304, 2048, 2048, 16, 16, 0, 0, 4096, 1e-5, 0, -1, 50279, 8},
      {"granite", 32000, 4096, 11008, 32, 32, 0, 0, 2048, 1e-6, 0, 1, 2, 0},
      {"granitemoe", 32000, 4096, 11008, 32, 32, 0, 0, 2048, 1e-6, 0, 1, 2, 2},
      {"granitemoeshared", 32000, 4096, 11008, 32, 32, 0, 0, 2048, 1e-6, 0, 1, 2, 2},
  }};
  for (const ConfigDefaults& row : kRows) {
    if (row.model_type == model_type) return &row;
  }
  return nullptr;
}

}  // namespace moeweld::model
