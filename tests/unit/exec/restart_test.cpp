#include "exec/restart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <random>

#include "exec/journal.h"
#include "exec/publish.h"
#include "moeweld/exec/manifest.h"
#include "support/simulated_storage.h"
#include "support/synthetic_plan.h"
#include "unit/expect_error.h"
#include "unit/temporary_directory.h"

namespace moeweld::exec {
namespace {

using testing_support::make_synthetic_plan;
using testing_support::read_file;

class Restart : public testing::Test {
 protected:
  Restart() {
    options_.journal_interval = std::chrono::duration<double>(0);
    options_.memory_limit_bytes = 256 << 20;
    options_.version = "1.0";
  }

  plan::MergePlan make_plan(const std::string& method, int num_models, bool has_base,
                            const std::vector<std::pair<std::string, double>>& parameters) {
    return make_synthetic_plan(directory_.path(),
                               {{"embedding", {1531, 2031}, DType::kBF16},
                                {"norm", {1531}, DType::kBF16},
                                {"up", {1700, 1531}, DType::kBF16},
                                {"down", {1531, 1300}, DType::kF32},
                                {"head", {2031, 1531}, DType::kBF16}},
                               method, num_models, has_base, parameters, 2);
  }

  void run(const plan::MergePlan& plan, int ranks, const std::string& output, const ProgressCallback& progress = {}) {
    const plan::Schedule schedule = plan::make_schedule(plan, ranks);
    run_thread_peers(ranks, [&](Peers& peers) {
      preflight(peers, *storage_, plan, output, options_);
      const MergeReport report = execute(peers, *storage_, plan, schedule, output, options_, progress);
      if (peers.rank() == 0) report_ = report;
    });
  }

  /// Ends every rank once the ranks have written `bytes`: rank 0 sees all, the others themselves. Rank 0's share alone may be nearly done.
  void interrupt(const plan::MergePlan& plan, int ranks, const std::string& output, std::uint64_t bytes) {
    const ProgressCallback stop = [&](std::span<const Progress> progress) {
      std::uint64_t written = 0;
      for (const Progress& rank : progress) written += rank.written_bytes;
      if (written >= bytes) throw Error(ErrorCode::kInterrupted, "a signal asked to stop");
    };
    expect_error([&] { run(plan, ranks, output, stop); }, ErrorCode::kInterrupted, {});
    EXPECT_TRUE(storage_->exists(partial_directory(output)));
    EXPECT_FALSE(storage_->exists(output));
  }

  void expect_same(const plan::MergePlan& plan, const std::string& output, const std::string& reference) {
    for (const plan::PlannedOutputFile& file : plan.output_files) {
      EXPECT_TRUE(read_file(output + "/" + file.name) == read_file(reference + "/" + file.name)) << file.name;
    }
    const auto files = [&](const std::string& directory) {
      std::map<std::string, std::string> result;
      for (const ManifestFile& file : parse_manifest(read_file(directory + "/" + kManifestName), directory).files) {
        result[file.name] = file.digest;
      }
      return result;
    };
    EXPECT_EQ(files(output), files(reference));
    EXPECT_FALSE(storage_->exists(output + "/journal"));
    EXPECT_FALSE(storage_->exists(partial_directory(output)));
  }

  TemporaryDirectory directory_;
  std::shared_ptr<Storage> storage_ = make_posix_storage();
  ExecuteOptions options_;
  MergeReport report_;
};

TEST_F(Restart, EndsInTheBytesOfAnUndisturbedRunOnOtherRanksAndMemory) {
  for (const char* method : {"linear", "slerp", "ties"}) {
    const bool is_slerp = std::string(method) == "slerp";
    const plan::MergePlan plan = is_slerp ? make_plan(method, 2, true, {{"t", 0.4}}) : make_plan(method, 3, true, {{"weight", 0.5}});
    const std::string reference = directory_ / (std::string("whole-") + method);
    run(plan, 1, reference);
    const std::string output = directory_ / (std::string("out-") + method);
    std::uint64_t before = 0;
    int ranks = 3;
    // Stopped again and again, each time a little further, each time on other ranks and another memory limit.
    for (const std::uint64_t stop : {std::uint64_t{1} << 20, std::uint64_t{3} << 20, std::uint64_t{1} << 20}) {
      SCOPED_TRACE(std::string(method) + " on " + std::to_string(ranks) + " ranks");
      if (plan.output_bytes() - before < 2 * stop) break;  // a busy machine noticed the last stop late: too little is left to stop in
      interrupt(plan, ranks, output, stop);
      const JournalSummary journals = read_journals(*storage_, partial_directory(output)).value();
      EXPECT_GE(journals.finished.finished_bytes(), before + stop) << "an interrupted run kept nothing";
      before = journals.finished.finished_bytes();
      ranks = ranks == 3 ? 1 : 2;
      options_.resume = true;
      options_.memory_limit_bytes = minimum_memory_bytes(plan) + (std::uint64_t{12} << 20);
    }
    run(plan, ranks, output);
    EXPECT_EQ(report_.resumed_bytes, before);
    EXPECT_EQ(report_.written_bytes + before, plan.output_bytes()) << "work was done twice, or not at all";
    expect_same(plan, output, reference);
    options_.resume = false;
  }
}

TEST_F(Restart, NothingIsLeftToDoAfterTheLastByte) {
  const plan::MergePlan plan = make_plan("linear", 2, false, {{"weight", 1}});
  run(plan, 2, directory_ / "whole");
  // All is written, and the run dies when it publishes: the directory's name is taken by a directory that is not empty.
  directory_.write("out/x", "");
  options_.force = false;
  const plan::Schedule schedule = plan::make_schedule(plan, 2);
  expect_error(
      [&] { run_thread_peers(2, [&](Peers& peers) { execute(peers, *storage_, plan, schedule, directory_ / "out", options_, {}); }); },
      ErrorCode::kIo, {});
  storage_->remove_all(directory_ / "out");
  // Publishing came as far as removing the journal: only the name is missing.
  options_.resume = true;
  run_thread_peers(2, [&](Peers& peers) { EXPECT_TRUE(is_published(peers, *storage_, plan, directory_ / "out", options_)); });
  expect_same(plan, directory_ / "out", directory_ / "whole");
  run_thread_peers(1, [&](Peers& peers) { EXPECT_TRUE(is_published(peers, *storage_, plan, directory_ / "out", options_)); });
  plan::MergePlan other = plan;
  other.seed = 5;
  run_thread_peers(1, [&](Peers& peers) { EXPECT_FALSE(is_published(peers, *storage_, other, directory_ / "out", options_)); });
}

TEST_F(Restart, BeginsWhereThereIsNothingToContinue) {
  const plan::MergePlan plan = make_plan("linear", 2, false, {{"weight", 1}});
  run(plan, 2, directory_ / "whole");
  options_.resume = true;
  run(plan, 2, directory_ / "out");
  expect_same(plan, directory_ / "out", directory_ / "whole");
  // Killed between making the files and the journal.
  storage_->make_directories(directory_ / "other.partial/journal");
  storage_->create_sized((directory_ / "other.partial/") + plan.output_files[0].name, 5);
  run(plan, 2, directory_ / "other");
  expect_same(plan, directory_ / "other", directory_ / "whole");
}

TEST_F(Restart, RefusesADirectoryThatIsNotAnInterruptedMerge) {
  const plan::MergePlan plan = make_plan("linear", 2, false, {{"weight", 1}});
  directory_.write("out.partial/thesis.tex", "ten years of work");
  options_.resume = true;
  expect_error([&] { run(plan, 2, directory_ / "out"); }, ErrorCode::kInvalidInput, {"thesis.tex", "--force"});
  EXPECT_EQ(read_file(directory_ / "out.partial/thesis.tex"), "ten years of work");
}

TEST_F(Restart, RefusesOtherWorkByWhatDiffersAndKeepsWhatIsThere) {
  const plan::MergePlan plan = make_plan("linear", 2, false, {{"weight", 1}});
  interrupt(plan, 2, directory_ / "out", 1 << 20);
  options_.resume = true;
  const auto refused = [&](const plan::MergePlan& other, std::initializer_list<std::string> words) {
    expect_error([&] { run(other, 2, directory_ / "out"); }, ErrorCode::kInvalidInput, words);
    EXPECT_GT(read_journals(*storage_, directory_ / "out.partial").value().finished.finished_bytes(), 0U);
  };
  plan::MergePlan other = plan;
  other.config_text += "# a word";
  refused(other, {"the configuration was another one"});
  other = plan;
  other.seed = 3;
  refused(other, {"its seed was 0, and now it is 3"});
  other = plan;
  other.operations[0].task.parameters.push_back(1);
  refused(other, {"options that the output depends on"});
  options_.version = "1.1";
  refused(plan, {"1.0", "1.1"});
  options_.version = "1.0";
  std::ofstream(plan.input_files[1].path, std::ios::app) << "x";
  other = plan;
  other.input_files[1].identity = storage_->identity(other.input_files[1].path).value();
  refused(other, {"model-1.safetensors changed since"});
}

TEST_F(Restart, TheConfigurationMayHaveMoved) {
  plan::MergePlan plan = make_plan("linear", 2, false, {{"weight", 1}});
  run(plan, 2, directory_ / "whole");
  interrupt(plan, 2, directory_ / "out", 1 << 20);
  plan.config_path = "elsewhere.yml";
  plan.notes.push_back("accepted, without effect here: --cuda");
  options_.resume = true;
  run(plan, 1, directory_ / "out");
  EXPECT_GT(report_.resumed_bytes, 0U);
  expect_same(plan, directory_ / "out", directory_ / "whole");
}

TEST_F(Restart, AFileThatLostItsLengthIsMadeAgainOnlyIfNothingWasInIt) {
  const plan::MergePlan plan = make_plan("linear", 2, false, {{"weight", 1}});
  run(plan, 2, directory_ / "whole");
  // In one thread nothing is written ahead of what the interruption sees.
  options_.in_one_thread = true;
  interrupt(plan, 1, directory_ / "out", 1 << 20);
  options_.in_one_thread = false;
  options_.resume = true;
  const std::string last = (directory_ / "out.partial/") + plan.output_files.back().name;
  const std::string first = (directory_ / "out.partial/") + plan.output_files.front().name;
  std::filesystem::resize_file(last, 0);
  const std::string bytes = read_file(first);
  std::filesystem::resize_file(first, 4096);
  expect_error([&] { run(plan, 1, directory_ / "out"); }, ErrorCode::kInvalidInput, {"part-0", "4096", "--force"});
  directory_.write("out.partial/" + plan.output_files.front().name, bytes);
  run(plan, 1, directory_ / "out");
  expect_same(plan, directory_ / "out", directory_ / "whole");
}

TEST_F(Restart, SlotsComeFromTheJournal) {
  plan::MergePlan plan = make_synthetic_plan(directory_.path(), {{"embedding", {50, 8}, DType::kF32}, {"router", {2, 8}, DType::kF32}},
                                             "linear", 1, false, {{"weight", 1}});
  plan::Slot slot;
  slot.shape = {2, 8};
  slot.embedding = plan.operations[0].sources[0];
  slot.embedding_shape = {50, 8};
  slot.positive_ids = {{{3, 7}, {9}}, {{1}}};
  plan.slots.push_back(slot);
  plan.operations[1].kind = plan::Operation::Kind::kSlot;
  plan.operations[1].sources.clear();
  // A processor that computes other rows: what was journaled is what counts.
  run_thread_peers(2, [&](Peers& peers) {
    const Start start = start_or_resume(peers, *storage_, plan, directory_ / "out.partial", options_);
    PreparedSlots slots;
    for (int i = 0; i < 16; ++i) slots.rows.resize(1), slots.rows[0].push_back(i * 0.5);
    if (peers.rank() == 0) Journal(*storage_, journal_directory(directory_ / "out.partial"), start.attempt, 0).append(slots);
  });
  options_.resume = true;
  run(plan, 2, directory_ / "out");
  std::vector<float> rows(16);
  std::memcpy(rows.data(), read_file(directory_ / "out/part-0.safetensors").data() + plan.tensors[1].begin, 64);
  for (int i = 0; i < 16; ++i) EXPECT_EQ(rows[static_cast<std::size_t>(i)], static_cast<float>(i) * 0.5F);
}

/// What a process dies of in a simulated file system.
struct Death {};
const std::map<std::string, std::string> no_inputs;

TEST_F(Restart, WhoseWorkItIsSurvivesADeathBeforeTheFirstSyncAndThenALossOfPower) {
  const plan::MergePlan plan = make_plan("linear", 2, false, {{"weight", 0.5}});
  const std::string partial = "/d/out.partial";
  for (std::uint32_t seed = 0; seed < 40; ++seed) {
    testing_support::SimulatedStorage storage(no_inputs, seed);
    storage.make_directories("/d");
    storage.set_hook([&](const char* operation, const std::string& path) {
      if (std::string(operation) == "sync" && path.starts_with(journal_directory(partial))) throw Death();
    });
    options_.resume = false;
    EXPECT_THROW(run_thread_peers(1, [&](Peers& peers) { start_or_resume(peers, storage, plan, partial, options_); }), Error);
    storage.set_hook({});
    options_.resume = true;
    run_thread_peers(1, [&](Peers& peers) { EXPECT_TRUE(start_or_resume(peers, storage, plan, partial, options_).is_resumed); });
    storage.lose_power();
    EXPECT_TRUE(read_journals(storage, partial).has_value()) << "seed " << seed;
  }
}

TEST_F(Restart, WhatWasPreparedSurvivesADeathBeforeItsSyncAndThenALossOfPower) {
  const plan::MergePlan plan = make_plan("linear", 2, false, {{"weight", 0.5}});
  const std::string partial = "/d/out.partial";
  for (std::uint32_t seed = 0; seed < 40; ++seed) {
    testing_support::SimulatedStorage storage(no_inputs, seed);
    storage.make_directories("/d");
    options_.resume = false;
    run_thread_peers(1, [&](Peers& peers) { start_or_resume(peers, storage, plan, partial, options_); });
    Journal journal(storage, journal_directory(partial), 1, 0);
    storage.set_hook([](const char* operation, const std::string&) {
      if (std::string(operation) == "sync") throw Death();
    });
    EXPECT_THROW(journal.append(PreparedSlots{}), Death);
    storage.set_hook({});
    options_.resume = true;
    run_thread_peers(1, [&](Peers& peers) { EXPECT_TRUE(start_or_resume(peers, storage, plan, partial, options_).slots.has_value()); });
    storage.lose_power();
    const std::optional<JournalSummary> summary = read_journals(storage, partial);
    EXPECT_TRUE(summary && summary->slots) << "seed " << seed;
  }
}

TEST_F(Restart, WhoDiesWhileRemovingANearlyPublishedMergeLeavesWhatAnotherCanContinue) {
  const plan::MergePlan plan = make_plan("linear", 2, false, {{"weight", 0.5}});
  const std::string partial = "/d/out.partial";
  bool has_died = true;
  for (int step = 1; has_died; ++step) {
    testing_support::SimulatedStorage storage(no_inputs, static_cast<std::uint32_t>(step));
    storage.make_directories("/d");
    options_.resume = options_.force = false;
    run_thread_peers(1, [&](Peers& peers) { start_or_resume(peers, storage, plan, partial, options_); });
    for (const char* name : {"README.md", "config.json", "model.safetensors.index.json", "moeweld_manifest.json"})
      storage.write_text(partial + "/" + name, "{}");
    has_died = false;
    storage.set_hook([&, left = step](const char* operation, const std::string&) mutable {
      if (std::string(operation).starts_with("remove") && --left == 0) {
        has_died = true;
        throw Death();
      }
    });
    options_.force = true;
    const auto begin = [&] { run_thread_peers(1, [&](Peers& peers) { start_or_resume(peers, storage, plan, partial, options_); }); };
    bool has_failed = false;
    try {
      begin();
    } catch (const Error&) {
      has_failed = true;
    }
    EXPECT_EQ(has_failed, has_died);
    storage.set_hook({});
    options_.force = false;
    options_.resume = true;
    EXPECT_NO_THROW(begin()) << "died at removal " << step;
    ASSERT_LT(step, 100);
  }
}

}  // namespace
}  // namespace moeweld::exec
