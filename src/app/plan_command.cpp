#include <fmt/format.h>

#include <algorithm>
#include <iostream>

#include "app/run.h"
#include "moeweld/plan/plan_report.h"

namespace moeweld::app {

int run_plan(Storage& storage, const Options& options) {
  const plan::MergePlan plan = plan_configuration(storage, options);
  const plan::Schedule schedule = plan::make_schedule(plan, std::max(1, options.ranks));
  const std::uint64_t memory = exec::planned_memory_bytes(plan, options.memory_limit_bytes, std::max(1, options.threads));
  if (options.json) {
    plan::write_plan_json(std::cout, plan, schedule, memory);
  } else {
    fmt::print("{}", plan::plan_text(plan, schedule, memory, options.verbose));
  }
  return 0;
}

}  // namespace moeweld::app
