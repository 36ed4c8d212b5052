#pragma once
/// The empty file: all datasets, all attributes, the data's place reserved.

#include <string>

#include "moeweld/hdf5/hdf5_file.h"
#include "moeweld/plan/merge_plan.h"

namespace moeweld::hdf5 {

/// Of output file `file` of the plan. The same bytes whoever calls it: nothing in it depends on time, place or number of ranks.
void create_file(const std::string& path, const plan::MergePlan& plan, std::uint32_t file, const Provenance& provenance);

}  // namespace moeweld::hdf5
