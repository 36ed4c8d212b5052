#include <cmath>
#include <cstring>

#include "merge/combine.h"
#include "merge/kernels/convert.h"
#include "merge/methods/rows.h"
#include "merge/tiles.h"

namespace moeweld::merge {

namespace {

template <typename T>
void convert(const Task& task, const Elements& elements, std::byte* output) {
  const std::size_t element_size = size_bytes(task.output_dtype);
  for_padded(task, elements, output, element_size, [&](const Elements& part, std::size_t, std::byte* target) {
    for_decoded_tiles<T>(task, part, [&](std::span<const void* const> tiles, std::size_t offset, std::size_t num) {
      encode(task.output_dtype, static_cast<const T*>(tiles[0]), num, NanPolicy::kPayload, target + offset * element_size);
    });
  });
}

void apply(const Task& task, const Decisions&, const Elements& elements, std::byte* output) {
  const double scale = task.inputs[0].parameters[0];
  if (!std::isnan(scale)) return apply_combination(task, {.terms = {0}, .weights = {scale}}, elements, output);
  if (task.inputs[0].dtype == task.output_dtype) {
    std::memcpy(output, elements.inputs[0], elements.num_elements * size_bytes(task.output_dtype));
  } else if (computes_in_float64(task.output_dtype)) {
    convert<double>(task, elements, output);
  } else {
    convert<float>(task, elements, output);
  }
}

}  // namespace

MethodRow passthrough_row() {
  MethodRow row;
  row.name = "passthrough";
  row.title = "Passthrough: one model's tensors, as they are or scaled";
  row.inputs = {.min_inputs = 1, .max_inputs = 1, .base = Base::kIgnored};
  row.model_parameters = {{.name = "scale", .optional = true, .meaning = "factor; none: unchanged", .base_too = true}};
  row.apply = apply;
  return row;
}

}  // namespace moeweld::merge
