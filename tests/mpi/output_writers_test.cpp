#include "moeweld/dist/output_writers.h"

#include <gtest/gtest.h>

#include <atomic>

#include "moeweld/dist/mpi_peers.h"
#include "moeweld/exec/execute.h"
#include "mpi/shared_directory.h"
#include "support/forwarding_storage.h"
#include "support/synthetic_plan.h"
#include "unit/expect_error.h"

namespace moeweld::dist {
namespace {

using testing_support::expected_files;
using testing_support::make_synthetic_plan;
using testing_support::read_file;
using testing_support::SyntheticTensor;

/// Counts what is opened for writing below OUT.partial, and can run out of space.
class WatchedStorage : public testing_support::ForwardingStorage {
 public:
  explicit WatchedStorage(bool is_full = false) : is_full_(is_full) {}
  std::unique_ptr<OutputFile> open_output(const std::string& path, IoMode mode) override {
    ++num_opened_;
    if (is_full_) throw Error(ErrorCode::kNoSpace, "there is no space left", path);
    return ForwardingStorage::open_output(path, mode);
  }
  int num_opened() const { return num_opened_; }

 private:
  const bool is_full_;
  std::atomic<int> num_opened_ = 0;
};

/// Several windows per rank, three files, a border in every tensor; then a file that only rank 0 writes.
const std::vector<SyntheticTensor> kTensors = {
    {"huge", {2000, 1531}},           {"norm", {1531}}, {"bias", {7}}, {"up", {900, 1531}}, {"down", {500, 700}, DType::kF32},
    {"other", {77, 50}, DType::kF32}, {"tiny", {3}}};

using MakeWriter = std::function<std::unique_ptr<exec::OutputWriter>(Peers&, Storage&)>;

std::unique_ptr<exec::OutputWriter> mpiio(Peers& peers, Storage&) { return make_mpiio_writer(peers); }
std::unique_ptr<exec::OutputWriter> gather(Peers& peers, Storage& storage) { return make_gather_writer(peers, storage, IoMode::kAuto); }
/// As on nodes of two ranks each.
std::unique_ptr<exec::OutputWriter> gather_in_pairs(Peers& peers, Storage& storage) {
  return make_gather_writer(peers, storage, IoMode::kAuto, peers.rank() / 2);
}

void expect_same_bytes(const std::vector<SyntheticTensor>& tensors, const MakeWriter& make_writer) {
  const auto peers = make_mpi_peers();
  const SharedDirectory directory(*peers);
  const plan::MergePlan plan = broadcast_plan(*peers, [&] {
    return make_synthetic_plan(directory.path(), tensors, "ties", 3, true, {{"weight", 0.5}, {"density", 0.3}});
  });
  const auto storage = make_posix_storage();
  const auto writer = make_writer(*peers, *storage);
  exec::ExecuteOptions options;
  options.memory_limit_bytes = exec::minimum_memory_bytes(plan) + (std::uint64_t{12} << 20);
  options.writer = writer.get();
  exec::execute(*peers, *storage, plan, plan::make_schedule(plan, peers->size()), directory.path() + "/out", options, {});
  if (peers->rank() != 0) return;
  const std::vector<std::string> expected = expected_files(plan);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_TRUE(read_file(directory.path() + "/out/" + plan.output_files[i].name) == expected[i])
        << plan.output_files[i].name << " differs";
  }
}

/// Two models: the first two files belong to both, the last one to the second alone.
void expect_same_bytes_in_copies(const MakeWriter& make_writer) {
  const auto peers = make_mpi_peers();
  const SharedDirectory directory(*peers);
  const plan::MergePlan plan = broadcast_plan(*peers, [&] {
    plan::MergePlan made = make_synthetic_plan(directory.path(), kTensors, "linear", 2, false, {{"weight", 1}});
    made.outputs = {"left", "right"};
    for (std::size_t i = 0; i < 2; ++i) {
      made.output_files[i].copies = {"right/" + made.output_files[i].name};
      made.output_files[i].name = "left/" + made.output_files[i].name;
    }
    made.output_files[2].name = "right/" + made.output_files[2].name;
    return made;
  });
  const auto storage = make_posix_storage();
  const auto writer = make_writer(*peers, *storage);
  exec::ExecuteOptions options;
  options.writer = writer.get();
  const exec::MergeReport report =
      exec::execute(*peers, *storage, plan, plan::make_schedule(plan, peers->size()), directory.path() + "/out", options, {});
  EXPECT_EQ(report.written_bytes, plan.output_bytes());
  if (peers->rank() != 0) return;
  const std::vector<std::string> expected = expected_files(plan);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    std::vector<std::string> places = plan.output_files[i].copies;
    places.push_back(plan.output_files[i].name);
    for (const std::string& place : places)
      EXPECT_TRUE(read_file(directory.path() + "/out/" + place) == expected[i]) << place << " differs";
  }
}

TEST(MpiIoWriter, WritesCopiesOfSharedFiles) { expect_same_bytes_in_copies(mpiio); }
TEST(GatherWriter, WritesCopiesOfSharedFiles) { expect_same_bytes_in_copies(gather_in_pairs); }

TEST(MpiIoWriter, WritesTheSameBytes) { expect_same_bytes(kTensors, mpiio); }
TEST(MpiIoWriter, RanksWithNothingToWriteTakePart) { expect_same_bytes({{"tiny", {3}}}, mpiio); }
TEST(GatherWriter, WritesTheSameBytes) { expect_same_bytes(kTensors, gather); }
TEST(GatherWriter, WritesTheSameBytesFromSeveralNodes) { expect_same_bytes(kTensors, gather_in_pairs); }
TEST(GatherWriter, RanksWithNothingToWriteTakePart) { expect_same_bytes({{"tiny", {3}}}, gather_in_pairs); }

TEST(GatherWriter, OnlyTheWriterOfANodeOpensOutputFiles) {
  const auto peers = make_mpi_peers();
  const SharedDirectory directory(*peers);
  const plan::MergePlan plan = broadcast_plan(*peers, [&] {
    return make_synthetic_plan(directory.path(), kTensors, "linear", 2, false, {{"weight", 1}});
  });
  WatchedStorage storage;
  const auto writer = gather_in_pairs(*peers, storage);
  exec::ExecuteOptions options;
  options.writer = writer.get();
  exec::execute(*peers, storage, plan, plan::make_schedule(plan, peers->size()), directory.path() + "/out", options, {});
  if (peers->rank() % 2 == 0) {
    EXPECT_GT(storage.num_opened(), 0) << "every pair of ranks has a share of this output";
  } else {
    EXPECT_EQ(storage.num_opened(), 0);
  }
}

void expect_error_of_the_last_rank(const MakeWriter& make_writer) {
  const auto peers = make_mpi_peers();
  const SharedDirectory directory(*peers);
  const plan::MergePlan plan = broadcast_plan(*peers, [&] {
    return make_synthetic_plan(directory.path(), kTensors, "linear", 2, false, {{"weight", 1}});
  });
  const auto storage = make_posix_storage();
  const auto writer = make_writer(*peers, *storage);
  exec::ExecuteOptions options;
  options.writer = writer.get();
  int num_calls = 0;
  const exec::ProgressCallback fail = [&](std::span<const exec::Progress>) {
    if (peers->rank() == peers->size() - 1 && ++num_calls == 2) throw Error(ErrorCode::kIo, "the network is gone", "somewhere");
  };
  expect_error(
      [&] { exec::execute(*peers, *storage, plan, plan::make_schedule(plan, peers->size()), directory.path() + "/out", options, fail); },
      ErrorCode::kIo, {"somewhere", "the network is gone"});
  EXPECT_FALSE(storage->exists(directory.path() + "/out"));
}

TEST(MpiIoWriter, ARankThatFailsEndsTheRoundsOfAll) { expect_error_of_the_last_rank(mpiio); }
TEST(GatherWriter, ARankThatFailsEndsTheRoundsOfAll) { expect_error_of_the_last_rank(gather_in_pairs); }

TEST(GatherWriter, AFullDiskOfOneNodeIsEveryonesError) {
  const auto peers = make_mpi_peers();
  const SharedDirectory directory(*peers);
  const plan::MergePlan plan = broadcast_plan(*peers, [&] {
    return make_synthetic_plan(directory.path(), kTensors, "linear", 2, false, {{"weight", 1}});
  });
  const int guilty = (peers->size() - 1) / 2 * 2;  // the last writer
  WatchedStorage storage(peers->rank() == guilty);
  const auto writer = gather_in_pairs(*peers, storage);
  exec::ExecuteOptions options;
  options.writer = writer.get();
  expect_error(
      [&] { exec::execute(*peers, storage, plan, plan::make_schedule(plan, peers->size()), directory.path() + "/out", options, {}); },
      ErrorCode::kNoSpace, {"there is no space left"});
}

}  // namespace
}  // namespace moeweld::dist
