#include <gtest/gtest.h>
#include <stdlib.h>

#include <chrono>
#include <span>
#include <string>
#include <thread>

#include "moeweld/dist/mpi_peers.h"
#include "moeweld/exec/execute.h"
#include "moeweld/exec/manifest.h"
#include "moeweld/merge/simd_target.h"
#include "mpi/shared_directory.h"
#include "support/synthetic_plan.h"
#include "unit/expect_error.h"

namespace moeweld {
namespace {

using testing_support::expected_files;
using testing_support::make_synthetic_plan;
using testing_support::read_file;

/// Rank 0 compares with whole tensors merged in memory.
void expect_same_bytes(Peers& peers, const std::string& method, int num_models, bool has_base,
                       const std::vector<std::pair<std::string, double>>& parameters) {
  const SharedDirectory directory(peers);
  const plan::MergePlan plan = broadcast_plan(peers, [&] {
    return make_synthetic_plan(
        directory.path(), {{"huge", {2000, 1531}}, {"norm", {1531}}, {"bias", {7}}, {"up", {300, 1531}}, {"down", {500, 700}, DType::kF32}},
        method, num_models, has_base, parameters);
  });
  const plan::Schedule schedule = plan::make_schedule(plan, peers.size());
  if (method == "slerp" && peers.size() >= 4) {
    ASSERT_FALSE(schedule.measurements.empty());
    EXPECT_GE(schedule.measurements[0].ranks.size(), 3U);
    EXPECT_GE(schedule.measurements[0].first_block.back(), 5U);
  }
  const auto storage = make_posix_storage();
  exec::ExecuteOptions options;
  options.memory_limit_bytes = exec::minimum_memory_bytes(plan) + (std::uint64_t{16} << 20);
  options.threads = 1 + peers.rank() % 2;
  exec::preflight(peers, *storage, plan, directory.path() + "/out", options);
  exec::execute(peers, *storage, plan, schedule, directory.path() + "/out", options, {});
  const std::string target = merge::active_simd_target();
  const auto targets = peers.all_gather(std::as_bytes(std::span(target)));
  if (peers.rank() == 0) {
    const std::string manifest_path = directory.path() + "/out/" + exec::kManifestName;
    const exec::Manifest manifest = exec::parse_manifest(read_file(manifest_path), manifest_path);
    ASSERT_EQ(manifest.simd_targets.size(), targets.size());
    for (std::size_t rank = 0; rank < targets.size(); ++rank) {
      EXPECT_EQ(manifest.simd_targets[rank], std::string(reinterpret_cast<const char*>(targets[rank].data()), targets[rank].size()));
    }
    const std::vector<std::string> expected = expected_files(plan);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      EXPECT_TRUE(read_file(directory.path() + "/out/" + plan.output_files[i].name) == expected[i])
          << plan.output_files[i].name << " differs";
    }
  }
}

TEST(MergeOverMpi, LinearGivesTheBytesOfOneRank) { expect_same_bytes(*dist::make_mpi_peers(), "linear", 3, false, {{"weight", 0.3}}); }
TEST(MergeOverMpi, SlerpGivesTheBytesOfOneRank) { expect_same_bytes(*dist::make_mpi_peers(), "slerp", 2, true, {{"t", 0.4}}); }
TEST(MergeOverMpi, TiesGivesTheBytesOfOneRank) {
  expect_same_bytes(*dist::make_mpi_peers(), "ties", 3, true, {{"weight", 0.5}, {"density", 0.3}});
}
TEST(MergeOverMpi, RanksWithDifferentVectorUnitsGiveTheSameBytes) {
  const auto peers = dist::make_mpi_peers();
  const std::vector<std::string> targets = merge::available_simd_targets();
  const std::string before = merge::active_simd_target();
  merge::choose_simd_target(targets[static_cast<std::size_t>(peers->rank()) % targets.size()]);
  expect_same_bytes(*peers, "ties", 3, true, {{"weight", 0.5}, {"density", 0.3}});
  merge::choose_simd_target(before);
}

TEST(MergeOverMpi, AssembliesGiveTheBytesOfOneRank) {
  const auto peers = dist::make_mpi_peers();
  const SharedDirectory directory(*peers);
  const plan::MergePlan plan = broadcast_plan(*peers, [&] { return testing_support::make_assembly_plan(directory.path()); });
  const auto storage = make_posix_storage();
  exec::execute(*peers, *storage, plan, plan::make_schedule(plan, peers->size()), directory.path() + "/out", {}, {});
  if (peers->rank() != 0) return;
  const std::vector<std::string> expected = expected_files(plan);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_TRUE(read_file(directory.path() + "/out/" + plan.output_files[i].name) == expected[i])
        << plan.output_files[i].name << " differs";
  }
}

TEST(MergeOverMpi, RanksWithoutWorkTakePart) {
  const auto peers = dist::make_mpi_peers();
  const SharedDirectory directory(*peers);
  const plan::MergePlan plan = broadcast_plan(*peers, [&] {
    return make_synthetic_plan(directory.path(), {{"tiny", {3}}}, "slerp", 2, true, {{"t", 0.5}});
  });
  const auto storage = make_posix_storage();
  exec::execute(*peers, *storage, plan, plan::make_schedule(plan, peers->size()), directory.path() + "/out", {}, {});
  if (peers->rank() == 0) {
    EXPECT_TRUE(read_file(directory.path() + "/out/part-0.safetensors") == expected_files(plan)[0]);
  }
}

TEST(MergeOverMpi, RankZeroHearsOfRanksThatStillWork) {
  const auto peers = dist::make_mpi_peers();
  if (peers->size() == 1) GTEST_SKIP() << "there is no other rank";
  const SharedDirectory directory(*peers);
  const plan::MergePlan plan = broadcast_plan(*peers, [&] {
    return make_synthetic_plan(directory.path(), {{"huge", {4000, 1531}}, {"up", {300, 1531}}}, "linear", 2, false, {{"weight", 1}});
  });
  const auto storage = make_posix_storage();
  const std::string seen = directory.path() + "/seen";
  const exec::ProgressCallback callback = [&](std::span<const exec::Progress> ranks) {
    const bool is_last = peers->rank() == peers->size() - 1;
    while (is_last && !storage->exists(seen)) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    if (peers->rank() != 0 || ranks[0].written_bytes != ranks[0].total_written_bytes) return;
    const exec::Progress& last = ranks.back();
    if (last.read_bytes != 0 && last.written_bytes < last.total_written_bytes && !storage->exists(seen)) storage->write_text(seen, "");
  };
  exec::ExecuteOptions options;
  options.balance = exec::Balance::kStatic;
  exec::execute(*peers, *storage, plan, plan::make_schedule(plan, peers->size()), directory.path() + "/out", options, callback);
  if (peers->rank() == 0) {
    EXPECT_TRUE(storage->exists(seen));
  }
}

TEST(MergeOverMpi, AnErrorOfTheLastRankIsEveryonesError) {
  const auto peers = dist::make_mpi_peers();
  const SharedDirectory directory(*peers);
  const plan::MergePlan plan = broadcast_plan(*peers, [&] {
    return make_synthetic_plan(directory.path(), {{"huge", {2000, 1531}}, {"up", {300, 1531}}}, "linear", 2, false, {{"weight", 1}});
  });
  const auto storage = make_posix_storage();
  const exec::ProgressCallback fail = [&](std::span<const exec::Progress>) {
    if (peers->rank() == peers->size() - 1) throw Error(ErrorCode::kIo, "the network is gone", "somewhere");
  };
  expect_error(
      [&] { exec::execute(*peers, *storage, plan, plan::make_schedule(plan, peers->size()), directory.path() + "/out", {}, fail); },
      ErrorCode::kIo, {"somewhere", "the network is gone"});
  peers->barrier();
  EXPECT_FALSE(storage->exists(directory.path() + "/out"));
}

}  // namespace
}  // namespace moeweld
