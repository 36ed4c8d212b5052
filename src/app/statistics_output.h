#pragma once
/// --stats FILE.h5

#include <string>

#include "app/options.h"
#include "moeweld/exec/execute.h"
#include "moeweld/plan/merge_plan.h"
#include "moeweld/storage/storage.h"

namespace moeweld::app {

/// Whether the file can be written, asked before any work. Throws Error. Rank 0.
void check_statistics_path(Storage& storage, const std::string& path);

/// What the run gathered. Rank 0.
void write_statistics_file(Storage& storage, const plan::MergePlan& plan, exec::MergeReport& report, const Options& options);

/// What is said of it at the end: a line, or a warning where it does not cover everything.
std::string statistics_text(const exec::MergeReport& report, const std::string& path);

}  // namespace moeweld::app
