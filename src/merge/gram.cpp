#include "merge/gram.h"

#include "merge/kernels/lane_sums.h"
#include "merge/tiles.h"

namespace moeweld::merge {

void gram_of_block(const Task& task, const Elements& elements, std::vector<double>& sums) {
  const std::size_t num_inputs = task.inputs.size();
  std::vector<LaneSums> lanes(num_inputs * (num_inputs + 1) / 2, LaneSums{});
  const bool two_bf16 = num_inputs == 2 && all_inputs_are(task, DType::kBF16);
  for_padded(task, elements, nullptr, 0, [&](const Elements& padded, std::size_t, std::byte*) {
    if (two_bf16) {
      add_products_bf16(reinterpret_cast<const std::uint16_t*>(padded.inputs[0]), reinterpret_cast<const std::uint16_t*>(padded.inputs[1]),
                        padded.num_elements, lanes[0], lanes[1], lanes[2]);
      return;
    }
    for_decoded_tiles<double>(task, padded, [&](std::span<const void* const> tiles, std::size_t, std::size_t num) {
      std::size_t pair = 0;
      for (std::size_t i = 0; i < num_inputs; ++i) {
        for (std::size_t j = i; j < num_inputs; ++j) {
          add_products(static_cast<const double*>(tiles[i]), static_cast<const double*>(tiles[j]), num, lanes[pair++]);
        }
      }
    });
  });
  for (const LaneSums& sum : lanes) sums.push_back(fold_lanes(sum));
}

}  // namespace moeweld::merge
