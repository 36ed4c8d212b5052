#pragma once
/// Where the tensors of several models stand that have one layout and share some of their tensors.

#include <string>
#include <vector>

#include "plan/output_layout.h"

namespace moeweld::plan {

/// `own[i]`: tensors that only the model in the directory `outputs[i]` has, of the same names and shapes for all models. Tensors of
/// `common` are in files of their own, which are written once and copied to the other models' (PlannedOutputFile::copies). Own files come
/// group by group, in each group model by model, so that what several models read for the same tensors is read within a short time. Fills
/// plan.outputs, output_files, tensors and operations. Throws as lay_out does.
void lay_out_several(const std::vector<std::string>& outputs, std::vector<OutputTensor> common, std::vector<std::vector<OutputTensor>> own,
                     const PlanOptions& options, MergePlan& plan);

}  // namespace moeweld::plan
