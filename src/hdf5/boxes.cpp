#include "hdf5/boxes.h"

#include <algorithm>
#include <vector>

namespace moeweld::hdf5 {

void for_boxes(const Shape& shape, std::uint64_t first, std::uint64_t count,
               const std::function<void(std::span<const std::uint64_t>, std::span<const std::uint64_t>, std::uint64_t)>& box) {
  const std::size_t rank = shape.size();
  std::vector<std::uint64_t> stride(rank, 1);
  for (std::size_t d = rank - 1; d > 0; --d) stride[d - 1] = stride[d] * shape[d];
  std::vector<std::uint64_t> start(rank);
  std::vector<std::uint64_t> extent(rank);
  while (count != 0) {
    // The outermost dimension along which whole slices begin here and fit.
    std::size_t along = rank - 1;
    while (along > 0 && first % stride[along - 1] == 0 && count >= stride[along - 1]) --along;
    for (std::size_t d = 0; d < rank; ++d) {
      start[d] = first / stride[d] % shape[d];
      extent[d] = d < along ? 1 : shape[d];
    }
    extent[along] = std::min(count / stride[along], shape[along] - start[along]);
    const std::uint64_t num_elements = extent[along] * stride[along];
    box(start, extent, num_elements);
    first += num_elements;
    count -= num_elements;
  }
}

}  // namespace moeweld::hdf5
