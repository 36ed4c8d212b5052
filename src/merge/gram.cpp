#include "moeweld/merge/gram.h"

#include "merge/kernels/lane_sums.h"
#include "merge/tiles.h"

namespace moeweld::merge {

void measure_gram(const Task& task, const Elements& block, std::vector<double>& sums) {
  const std::size_t inputs = task.inputs.size();
  std::vector<LaneSums> lanes(inputs * (inputs + 1) / 2, LaneSums{});
  for_padded(task, block, nullptr, 0, [&](const Elements& part, std::size_t, std::byte*) {
    if (inputs == 2 && all_inputs_are(task, DType::kBF16)) {
      add_products_bf16(reinterpret_cast<const std::uint16_t*>(part.inputs[0]), reinterpret_cast<const std::uint16_t*>(part.inputs[1]),
                        part.num_elements, lanes[0], lanes[1], lanes[2]);
      return;
    }
    for_decoded_tiles<double>(task, part, [&](std::span<const void* const> tiles, std::size_t, std::size_t num) {
      std::size_t entry = 0;
      for (std::size_t i = 0; i < inputs; ++i) {
        for (std::size_t j = i; j < inputs; ++j) {
          add_products(static_cast<const double*>(tiles[i]), static_cast<const double*>(tiles[j]), num, lanes[entry++]);
        }
      }
    });
  });
  for (const LaneSums& lane : lanes) sums.push_back(fold_lanes(lane));
}

}  // namespace moeweld::merge
