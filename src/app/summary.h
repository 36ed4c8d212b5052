#pragma once
/// What a finished run says: files, bytes, seconds per stage, rates, memory, and how even the ranks were.

#include <string>

#include "moeweld/exec/execute.h"
#include "moeweld/formats/json.h"
#include "moeweld/plan/merge_plan.h"

namespace moeweld::app {

std::string summary_text(const exec::MergeReport& report, const plan::MergePlan& plan, const std::string& output_directory);
formats::Json summary_json(const exec::MergeReport& report, const plan::MergePlan& plan, const std::string& output_directory);

}  // namespace moeweld::app
