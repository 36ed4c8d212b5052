#include "app/core_share.h"

#include <omp.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <sstream>

namespace moeweld::app {

namespace {

/// Of the kernels there are; cpu_set_t ends at 1024.
constexpr int kMostCores = 1 << 14;

std::string text_of(const std::string& path) {
  std::ifstream stream(path);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

/// The positive number that a text begins with: "4" and "4,2" (OMP_NUM_THREADS by level) are 4.
std::optional<int> leading_count(const char* text) {
  if (text == nullptr) return std::nullopt;
  const std::string_view view(text);
  int value = 0;
  const auto [end, error] = std::from_chars(view.data(), view.data() + view.size(), value);
  if (error != std::errc{} || value < 1) return std::nullopt;
  return value;
}

std::vector<int> affinity_cores() {
  // Where libgomp binds threads it has bound this one by now; its places are what the mask was.
  if (omp_get_proc_bind() != omp_proc_bind_false && omp_get_num_places() > 0) {
    std::set<int> cores;
    for (int place = 0; place < omp_get_num_places(); ++place) {
      std::vector<int> ids(static_cast<std::size_t>(omp_get_place_num_procs(place)));
      omp_get_place_proc_ids(place, ids.data());
      cores.insert(ids.begin(), ids.end());
    }
    return {cores.begin(), cores.end()};
  }
  cpu_set_t* mask = CPU_ALLOC(kMostCores);
  const std::size_t mask_bytes = CPU_ALLOC_SIZE(kMostCores);
  std::vector<int> cores;
  if (mask != nullptr && sched_getaffinity(0, mask_bytes, mask) == 0) {
    for (int core = 0; core < kMostCores; ++core) {
      if (CPU_ISSET_S(core, mask_bytes, mask)) cores.push_back(core);
    }
  }
  CPU_FREE(mask);
  if (cores.empty()) cores.push_back(0);
  return cores;
}

std::optional<double> quota_of(const std::string& directory) {
  std::istringstream max(text_of(directory + "/cpu.max"));
  std::string quota;
  double period = 0;
  if (!(max >> quota >> period)) {
    std::istringstream(text_of(directory + "/cpu.cfs_quota_us")) >> quota;
    std::istringstream(text_of(directory + "/cpu.cfs_period_us")) >> period;
  }
  const double microseconds = std::strtod(quota.c_str(), nullptr);  // "max" and -1: no limit
  if (microseconds <= 0 || period <= 0) return std::nullopt;
  return microseconds / period;
}

}  // namespace

void restore_affinity() {
  if (omp_get_proc_bind() == omp_proc_bind_false) return;
  cpu_set_t* mask = CPU_ALLOC(kMostCores);
  if (mask == nullptr) return;
  const std::size_t mask_bytes = CPU_ALLOC_SIZE(kMostCores);
  CPU_ZERO_S(mask_bytes, mask);
  for (const int core : affinity_cores()) CPU_SET_S(core, mask_bytes, mask);
  sched_setaffinity(0, mask_bytes, mask);
  CPU_FREE(mask);
}

std::optional<double> cgroup_quota(const std::string& proc_cgroup, const std::string& mount) {
  std::optional<double> smallest;
  std::istringstream lines(proc_cgroup);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos || line.compare(second + 1, 1, "/") != 0) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string path = line.substr(second + 1);
    std::vector<std::string> roots;
    if (controllers.empty()) {
      roots = {mount, mount + "/unified"};
    } else if (("," + controllers + ",").find(",cpu,") != std::string::npos) {
      roots = {mount + "/" + controllers, mount + "/cpu"};
    }
    while (!roots.empty()) {
      for (const std::string& root : roots) {
        const auto quota = quota_of(root + path);
        if (quota && (!smallest || *quota < *smallest)) smallest = quota;
      }
      if (path.empty()) break;
      path.resize(path == "/" ? 0 : path.rfind('/'));
    }
  }
  return smallest;
}

CoreFacts read_core_facts() {
  CoreFacts facts;
  char host[256] = "host";
  static_cast<void>(gethostname(host, sizeof host - 1));
  facts.host = std::string(host) + " " + text_of("/proc/sys/kernel/random/boot_id");
  facts.cores = affinity_cores();
  facts.cpus_per_task = leading_count(std::getenv("SLURM_CPUS_PER_TASK"));
  facts.cpus_on_node = leading_count(std::getenv("SLURM_CPUS_ON_NODE"));
  facts.quota = cgroup_quota(text_of("/proc/self/cgroup"), "/sys/fs/cgroup");
  facts.omp_threads = leading_count(std::getenv("OMP_NUM_THREADS"));
  return facts;
}

CoreShare share_cores(std::span<const CoreFacts> ranks, int rank) {
  const CoreFacts& own = ranks[static_cast<std::size_t>(rank)];
  std::map<int, int> ranks_of_core;
  CoreShare share;
  share.ranks_on_host = 0;
  for (const CoreFacts& other : ranks) {
    if (other.host != own.host) continue;
    ++share.ranks_on_host;
    for (const int core : other.cores) ++ranks_of_core[core];
  }
  share.cores_on_host = std::max(1, static_cast<int>(ranks_of_core.size()));

  double part = 0;
  bool is_shared = false;
  for (const int core : own.cores) {
    part += 1.0 / ranks_of_core[core];
    is_shared = is_shared || ranks_of_core[core] > 1;
  }
  double most = part;
  share.reason = is_shared ? "affinity mask, shared with other ranks" : "affinity mask";
  const auto bound = [&](std::optional<double> limit, const char* reason) {
    if (!limit || *limit >= most) return;
    most = *limit;
    share.reason = reason;
  };
  const auto shared = [&](double together) { return together / share.ranks_on_host; };
  if (own.quota) {
    bound(shared(*own.quota), "CPU quota of the control group");
    share.cores_on_host = std::clamp(static_cast<int>(*own.quota), 1, share.cores_on_host);
  }
  if (own.cpus_on_node) {
    bound(shared(*own.cpus_on_node), "SLURM_CPUS_ON_NODE");
    share.cores_on_host = std::min(*own.cpus_on_node, share.cores_on_host);
  }
  if (own.cpus_per_task) bound(*own.cpus_per_task, "SLURM_CPUS_PER_TASK");
  if (own.omp_threads) bound(*own.omp_threads, "OMP_NUM_THREADS");
  // A third and two thirds of a core are one.
  share.threads = std::max(1, static_cast<int>(std::floor(most + 1e-9)));
  return share;
}

IoLimits choose_io_limits(int cores_on_host, int wanted_reads, int wanted_writes) {
  const int by_cores = std::clamp(cores_on_host, 4, 16);
  return {wanted_reads > 0 ? wanted_reads : by_cores, wanted_writes > 0 ? wanted_writes : by_cores};
}

}  // namespace moeweld::app
