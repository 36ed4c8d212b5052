#pragma once
/// Cuts a run of elements into pieces that kernels take: padded to a multiple of kPadElements, decoded unless everything is BF16.

#include <array>
#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

#include "hwy/aligned_allocator.h"
#include "merge/kernels/convert.h"
#include "moeweld/merge/task.h"

namespace moeweld::merge {

/// Elements decoded at a time: small enough that a few inputs' tiles stay in the first-level cache.
constexpr std::size_t kTileElements = 512;

inline bool all_inputs_are(const Task& task, DType dtype) {
  for (const TaskInput& input : task.inputs) {
    if (input.dtype != dtype) return false;
  }
  return true;
}

/// Calls work(elements, num_valid, output) for at most two pieces whose num_elements are multiples of kPadElements: the run itself, and its
/// rest copied to buffers that end in zeros. `output_element_bytes` 0: no output.
template <class Work>
void for_padded(const Task& task, const Elements& elements, std::byte* output, std::size_t output_element_bytes, Work&& work) {
  const std::size_t whole = elements.num_elements / kPadElements * kPadElements;
  if (whole != 0) work(Elements{elements.first_element, whole, elements.inputs}, whole, output);
  const std::size_t rest = elements.num_elements - whole;
  if (rest == 0) return;
  using Padded = std::array<double, kPadElements>;
  std::vector<Padded> copies(elements.inputs.size(), Padded{});
  std::vector<const std::byte*> pointers(elements.inputs.size());
  for (std::size_t i = 0; i < copies.size(); ++i) {
    const std::size_t bytes = size_bytes(task.inputs[i].dtype);
    std::memcpy(copies[i].data(), elements.inputs[i] + whole * bytes, rest * bytes);
    pointers[i] = reinterpret_cast<const std::byte*>(copies[i].data());
  }
  Padded result{};
  auto* result_bytes = reinterpret_cast<std::byte*>(result.data());
  work(Elements{elements.first_element + whole, kPadElements, pointers}, rest, output_element_bytes == 0 ? nullptr : result_bytes);
  if (output_element_bytes != 0) std::memcpy(output + whole * output_element_bytes, result_bytes, rest * output_element_bytes);
}

/// Calls work(pointers, offset, num) for tiles of padded `elements`, pointers[i] being input i's tile decoded to T.
template <typename T, class Work>
void for_decoded_tiles(const Task& task, const Elements& elements, Work&& work) {
  const std::size_t num_inputs = elements.inputs.size();
  const auto storage = hwy::AllocateAligned<T>(num_inputs * kTileElements);
  std::vector<const void*> pointers(num_inputs);
  for (std::size_t offset = 0; offset < elements.num_elements; offset += kTileElements) {
    const std::size_t num = std::min(kTileElements, elements.num_elements - offset);
    for (std::size_t i = 0; i < num_inputs; ++i) {
      T* tile = storage.get() + i * kTileElements;
      decode(task.inputs[i].dtype, elements.inputs[i] + offset * size_bytes(task.inputs[i].dtype), num, tile);
      pointers[i] = tile;
    }
    work(std::span<const void* const>(pointers), offset, num);
  }
}

}  // namespace moeweld::merge
