#pragma once
/// Input files and source views as ranks send them to each other.

#include "moeweld/base/archive.h"
#include "moeweld/plan/merge_plan.h"

namespace moeweld {

template <class Archive>
void serialize(Archive& archive, FileIdentity& value) {
  archive(value.size_bytes, value.modified_ns);
}

}  // namespace moeweld

namespace moeweld::plan {

template <class Archive>
void serialize(Archive& archive, PlannedInputFile& value) {
  archive(value.path, value.identity, value.model);
}
template <class Archive>
void serialize(Archive& archive, SourceView& value) {
  archive(value.kind, value.dtype, value.file, value.begin, value.num_elements, value.columns, value.first, value.children);
}

}  // namespace moeweld::plan
