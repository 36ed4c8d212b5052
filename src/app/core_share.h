#pragma once
/// How many threads a rank may run: from what its environment, its affinity mask and its control group give it. Nothing here is collective.

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace moeweld::app {

/// What one rank sees of the cores it was given.
struct CoreFacts {
  std::string host;                  ///< equal for ranks that share cores: host name and boot id
  std::vector<int> cores;            ///< of the affinity mask, ascending
  std::optional<int> cpus_per_task;  ///< SLURM_CPUS_PER_TASK
  std::optional<int> cpus_on_node;   ///< SLURM_CPUS_ON_NODE: what the job has of the host, for all its ranks there
  std::optional<double> quota;       ///< cores' worth of time that the control group allows, for all ranks of the host
  std::optional<int> omp_threads;    ///< OMP_NUM_THREADS
};
template <class Archive>
void serialize(Archive& archive, CoreFacts& value) {
  archive(value.host, value.cores, value.cpus_per_task, value.cpus_on_node, value.quota, value.omp_threads);
}

struct CoreShare {
  int threads = 1;
  std::string reason;     ///< what bounds it: "SLURM_CPUS_PER_TASK", "affinity mask", …
  int ranks_on_host = 1;  ///< this rank among them
  int cores_on_host = 1;  ///< that the host's ranks have together
};

/// The share of rank `rank` of the world. A core that several ranks of a host may run on counts for each as its part, and time and cores
/// that the host's ranks have together are shared evenly, so that the threads of a host's ranks are never more than its cores unless there
/// are more ranks than cores: every rank has one thread at least.
CoreShare share_cores(std::span<const CoreFacts> ranks, int rank);

/// What this process sees.
CoreFacts read_core_facts();

/// Gives this thread the affinity mask back that the process was started with, where libgomp has bound it to a place.
void restore_affinity();

/// The smallest CPU quota between the control group and the root, in cores: cpu.max of version 2, cpu.cfs_quota_us of version 1.
/// `proc_cgroup`: the text of /proc/self/cgroup; `mount`: /sys/fs/cgroup.
std::optional<double> cgroup_quota(const std::string& proc_cgroup, const std::string& mount);

/// At most so many ranks of a node read, and so many write, at the same time.
struct IoLimits {
  int reads = 1;
  int writes = 1;
};

/// What was asked for, or for 0 as many as the node has cores for its ranks, but 4 at least and 16 at most: fewer leave a parallel file
/// system idle, more disturb each other (docs/running.md).
IoLimits choose_io_limits(int cores_on_host, int wanted_reads, int wanted_writes);

}  // namespace moeweld::app
