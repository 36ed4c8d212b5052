#include <fmt/format.h>

#include <algorithm>
#include <iostream>

#include "app/batch_header.h"
#include "app/run.h"
#include "moeweld/plan/job_estimate.h"
#include "moeweld/plan/plan_report.h"
#include "moeweld/plan/site_rates.h"

namespace moeweld::app {

namespace {

constexpr std::uint64_t kLargestSiteBytes = 1'000'000;

}  // namespace

void print_plan(const plan::MergePlan& plan, const Options& options) {
  const plan::Schedule schedule = plan::make_schedule(plan, std::max(1, options.ranks));
  const std::uint64_t memory = exec::planned_memory_bytes(plan, options.memory_limit_bytes, std::max(1, options.threads));
  if (options.json) {
    plan::write_plan_json(std::cout, plan, schedule, memory);
  } else {
    fmt::print("{}", plan::plan_text(plan, schedule, memory, options.verbose));
  }
}

int run_plan(Storage& storage, const Options& options) {
  const plan::MergePlan plan = plan_configuration(storage, options);
  if (options.sbatch) {
    const plan::SiteRates rates = options.site_file.empty()
                                      ? plan::stated_rates()
                                      : plan::parse_site_rates(storage.read_text(options.site_file, kLargestSiteBytes), options.site_file);
    const plan::JobEstimate estimate = plan::estimate_job(plan, rates, static_cast<std::uint64_t>(options.nodes), [&](int threads) {
      return exec::planned_memory_bytes(plan, options.memory_limit_bytes, threads);
    });
    fmt::print("{}", batch_header(plan, estimate, rates.source));
    return 0;
  }
  print_plan(plan, options);
  return 0;
}

}  // namespace moeweld::app
