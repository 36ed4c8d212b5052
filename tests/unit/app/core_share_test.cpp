#include "app/core_share.h"

#include <gtest/gtest.h>

#include <numeric>
#include <tuple>

#include "unit/temporary_directory.h"

namespace moeweld::app {
namespace {

std::vector<int> cores(int first, int count) {
  std::vector<int> result(static_cast<std::size_t>(count));
  std::iota(result.begin(), result.end(), first);
  return result;
}

CoreFacts on(const std::string& host, std::vector<int> mask) {
  CoreFacts facts;
  facts.host = host;
  facts.cores = std::move(mask);
  return facts;
}

TEST(CoreShare, OneRankHasItsMask) {
  const CoreFacts facts[] = {on("n1", cores(4, 6))};
  EXPECT_EQ(share_cores(facts, 0).threads, 6);
  EXPECT_EQ(share_cores(facts, 0).cores_on_host, 6);
}

TEST(CoreShare, RanksBoundToCoresOfTheirOwnShareNothing) {
  const CoreFacts facts[] = {on("n1", cores(0, 4)), on("n1", cores(4, 4)), on("n2", cores(0, 8))};
  EXPECT_EQ(share_cores(facts, 0).threads, 4);
  EXPECT_EQ(share_cores(facts, 1).threads, 4);
  EXPECT_EQ(share_cores(facts, 2).threads, 8);
  EXPECT_EQ(share_cores(facts, 0).ranks_on_host, 2);
  EXPECT_EQ(share_cores(facts, 0).cores_on_host, 8);
}

TEST(CoreShare, UnboundRanksShareEvenlyAlsoWhereTheJobHasAPartOfTheHost) {
  // 8 of 64 cores, confined by the job's cpuset, four ranks in it.
  const std::vector<CoreFacts> facts(4, on("n1", cores(16, 8)));
  for (int rank = 0; rank < 4; ++rank) EXPECT_EQ(share_cores(facts, rank).threads, 2);
}

TEST(CoreShare, MoreRanksThanCoresRunOneThreadEach) {
  const std::vector<CoreFacts> facts(5, on("n1", cores(0, 2)));
  EXPECT_EQ(share_cores(facts, 4).threads, 1);
}

TEST(CoreShare, OverlappingMasksCountSharedCoresByPart) {
  const CoreFacts facts[] = {on("n1", cores(0, 4)), on("n1", cores(2, 4))};
  EXPECT_EQ(share_cores(facts, 0).threads, 3);
  EXPECT_EQ(share_cores(facts, 1).threads, 3);
}

TEST(CoreShare, ThirdsAddUp) {
  const std::vector<CoreFacts> facts(3, on("n1", cores(0, 3)));
  EXPECT_EQ(share_cores(facts, 1).threads, 1);
  const std::vector<CoreFacts> six(3, on("n1", cores(0, 6)));
  EXPECT_EQ(share_cores(six, 1).threads, 2);
}

TEST(CoreShare, EveryBoundCountsAndIsNamed) {
  CoreFacts facts = on("n1", cores(0, 16));
  const auto share = [&] { return share_cores(std::span(&facts, 1), 0); };
  facts.quota = 12.5;
  EXPECT_EQ(share().threads, 12);
  EXPECT_EQ(share().reason, "CPU quota of the control group");
  facts.cpus_on_node = 10;
  EXPECT_EQ(share().threads, 10);
  EXPECT_EQ(share().reason, "SLURM_CPUS_ON_NODE");
  facts.cpus_per_task = 6;
  EXPECT_EQ(share().threads, 6);
  EXPECT_EQ(share().reason, "SLURM_CPUS_PER_TASK");
  facts.omp_threads = 3;
  EXPECT_EQ(share().threads, 3);
  EXPECT_EQ(share().reason, "OMP_NUM_THREADS");
  facts.omp_threads = 64;  // never more than there are
  EXPECT_EQ(share().threads, 6);
}

TEST(CoreShare, TimeAndCoresOfTheJobAreSharedByItsRanks) {
  CoreFacts facts = on("n1", cores(0, 64));
  facts.cpus_on_node = 8;
  facts.cpus_per_task = 8;  // of sbatch; mpirun then started four ranks in it
  const std::vector<CoreFacts> ranks(4, facts);
  EXPECT_EQ(share_cores(ranks, 2).threads, 2);
  facts.cpus_on_node = {};
  facts.cpus_per_task = {};
  facts.quota = 2.0;
  const std::vector<CoreFacts> confined(4, facts);
  EXPECT_EQ(share_cores(confined, 0).threads, 1);
  EXPECT_EQ(share_cores(confined, 0).cores_on_host, 2);
}

/// Threads of a host's ranks are never more than its cores, whatever the masks, unless ranks alone are more than that.
TEST(CoreShare, NeverOversubscribes) {
  for (const auto& [num_ranks, num_cores, overlap] : {std::tuple{1, 7, 0}, {2, 7, 1}, {3, 8, 2}, {4, 9, 0}, {8, 13, 4}}) {
    std::vector<CoreFacts> facts;
    for (int rank = 0; rank < num_ranks; ++rank) facts.push_back(on("n1", cores(rank * overlap, num_cores)));
    int threads = 0;
    for (int rank = 0; rank < num_ranks; ++rank) threads += share_cores(facts, rank).threads;
    EXPECT_LE(threads, share_cores(facts, 0).cores_on_host) << num_ranks << " ranks, " << num_cores << " cores each";
  }
}

TEST(CgroupQuota, IsTheSmallestOnTheWayToTheRoot) {
  const TemporaryDirectory mount;
  mount.write("job/step/cpu.max", "max 100000\n");
  mount.write("job/cpu.max", "250000 100000\n");
  EXPECT_EQ(cgroup_quota("0::/job/step\n", mount.path()), 2.5);
  mount.write("cpu.max", "150000 100000\n");
  EXPECT_EQ(cgroup_quota("0::/job/step\n", mount.path()), 1.5);
  EXPECT_EQ(cgroup_quota("0::/\n", mount.path()), 1.5);
}

TEST(CgroupQuota, ReadsVersionOne) {
  const TemporaryDirectory mount;
  mount.write("cpu,cpuacct/job/cpu.cfs_quota_us", "400000\n");
  mount.write("cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
  mount.write("cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  mount.write("cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cgroup_quota("4:memory:/job\n3:cpu,cpuacct:/job\n", mount.path()), 4.0);
}

TEST(CgroupQuota, NothingWhereThereIsNone) {
  const TemporaryDirectory mount;
  EXPECT_EQ(cgroup_quota("", mount.path()), std::nullopt);
  EXPECT_EQ(cgroup_quota("nonsense\n0::relative\n1:cpu:/\n", mount.path()), std::nullopt);
}

TEST(IoLimits, FollowTheNodesCoresWithinBounds) {
  EXPECT_EQ(choose_io_limits(2, 0, 0).reads, 4);
  EXPECT_EQ(choose_io_limits(8, 0, 0).writes, 8);
  EXPECT_EQ(choose_io_limits(128, 0, 0).reads, 16);
  EXPECT_EQ(choose_io_limits(128, 3, 40).reads, 3);
  EXPECT_EQ(choose_io_limits(128, 3, 40).writes, 40);
}

}  // namespace
}  // namespace moeweld::app
