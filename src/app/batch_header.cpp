#include "app/batch_header.h"

#include <fmt/format.h>

#include <cmath>

#include "moeweld/base/text.h"

namespace moeweld::app {

namespace {

constexpr std::uint64_t kSignalSeconds = 300;

/// Whole five minutes, as SLURM writes them.
std::string time_limit(double seconds) {
  constexpr std::uint64_t kStep = 300;
  const auto wanted = static_cast<std::uint64_t>(std::ceil(1.5 * seconds)) + kSignalSeconds;
  const std::uint64_t limit = (wanted + kStep - 1) / kStep * kStep;
  const std::uint64_t days = limit / 86400;
  const std::string clock = fmt::format("{:02}:{:02}:{:02}", limit / 3600 % 24, limit / 60 % 60, limit % 60);
  return days == 0 ? clock : fmt::format("{}-{}", days, clock);
}

}  // namespace

std::string batch_header(const plan::MergePlan& plan, const plan::JobEstimate& estimate, const std::string& rates) {
  const std::uint64_t gibibytes = (estimate.memory_per_node_bytes + (std::uint64_t{1} << 30) - 1) >> 30;
  std::string text = "#!/bin/bash\n";
  text +=
      fmt::format("# {}: {} in, {} out\n", printable(plan.title, 200), format_bytes(plan.input_bytes()), format_bytes(plan.output_bytes()));
  text += fmt::format("# Estimate: {} on {}, bound by {}; --time is half as much again and {} minutes to save the state.\n",
                      format_duration(estimate.seconds), estimate.nodes == 1 ? "1 node" : fmt::format("{} nodes", estimate.nodes),
                      estimate.bound_by, kSignalSeconds / 60);
  text += fmt::format("# Rates: {}\n", printable(rates, 400));
  text += fmt::format(
      "#SBATCH --job-name=moeweld-merge\n#SBATCH --nodes={}\n#SBATCH --ntasks-per-node={}\n#SBATCH --cpus-per-task={}\n#SBATCH --mem={}G\n"
      "#SBATCH --time={}\n#SBATCH --signal=B:USR1@{}\n#SBATCH --requeue\n#SBATCH --open-mode=append\n#SBATCH --output=%x-%j.out\n",
      estimate.nodes, estimate.ranks_per_node, estimate.cpus_per_task, gibibytes, time_limit(estimate.seconds), kSignalSeconds);
  return text;
}

}  // namespace moeweld::app
