#pragma once
/// What merge, extract and plan share: reading the config, planning, and running a plan on all ranks.

#include <functional>
#include <string>

#include "app/log.h"
#include "app/options.h"
#include "app/world.h"
#include "moeweld/config/merge_config.h"
#include "moeweld/plan/planner.h"

namespace moeweld::app {

plan::ModelSource make_model_source(Storage& storage, const Options& options);

/// Reads and plans options.config. For one rank; not collective.
plan::MergePlan plan_config(Storage& storage, const Options& options);

/// Rank 0 calls `make_plan`, all ranks run the plan into options.directory, rank 0 reports. Collective.
void run_job(World& world, const Options& options, const Log& log, const std::function<plan::MergePlan(Storage&)>& make_plan);

/// Flags that were given and mean nothing here, in one line; empty if there were none.
std::string flags_without_effect_text(const Options& options);

/// What is true of OUT after a failure; empty where nothing can have been written.
std::string output_state(Storage& storage, const Options& options);

}  // namespace moeweld::app
