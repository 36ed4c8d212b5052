/// Merges with everything but the writing of weights: plan, schedule, pipeline, digests, journal, resume. For merges that no disk here
/// holds (sparse inputs, --writes holes) and for the speed of all but writing (--writes nothing). bench/full_scale.py and
/// bench/rank_speedup.py run it.
///
///     mpirun -n 8 bench_null_merge CONFIG OUT [--resume]
///
/// SIGUSR1 ends it so that --resume continues it (exit code 75). Rank 0 prints one JSON object.

#include <signal.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <iostream>

#include "moeweld/base/archive.h"
#include "moeweld/config/merge_config.h"
#include "moeweld/dist/mpi_peers.h"
#include "moeweld/exec/execute.h"
#include "moeweld/formats/json.h"
#include "moeweld/merge/method.h"
#include "moeweld/plan/planner.h"
#include "moeweld/plan/schedule.h"
#include "support/null_storage.h"

namespace moeweld {
namespace {

using Clock = std::chrono::steady_clock;
using testing_support::NullStorage;
using testing_support::NullWrites;

constexpr int kInterruptedExit = 75;
constexpr std::uint64_t kLargestConfigBytes = 10'000'000;

volatile sig_atomic_t is_interrupted = 0;

struct Arguments {
  std::string config;
  std::string output;
  NullWrites writes = NullWrites::kHoles;
  plan::PlanOptions plan;
  exec::ExecuteOptions run;
  double journal_interval_seconds = 5;
};

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::vector<config::MethodInfo> method_infos() {
  std::vector<config::MethodInfo> result;
  for (const merge::MethodRow& row : merge::method_table()) {
    config::MethodInfo& info = result.emplace_back();
    info.name = row.name;
    for (const merge::ParameterRow& parameter : row.shared_parameters) info.parameters.push_back({std::string(parameter.name), false});
    for (const merge::ParameterRow& parameter : row.model_parameters) info.parameters.push_back({std::string(parameter.name), true});
  }
  return result;
}

plan::MergePlan make_shared_plan(Peers& peers, Storage& storage, const Arguments& arguments) {
  std::vector<std::byte> bytes;
  agree_on(peers, [&] {
    if (peers.rank() != 0) return;
    const std::string text = storage.read_text(arguments.config, kLargestConfigBytes);
    plan::ModelSource models(storage, {});
    bytes = plan::encode(plan::make_plan(config::parse_config(text, arguments.config, method_infos(), {}), models, arguments.plan));
  });
  peers.broadcast(bytes, 0);
  return plan::decode(bytes);
}

struct Counts {
  std::uint64_t weight_bytes = 0;
  std::uint64_t kept_bytes = 0;
  std::uint64_t other_bytes = 0;
  std::uint64_t highest_offset = 0;
  std::uint64_t peak_resident_bytes = 0;
};
template <class Archive>
void serialize(Archive& archive, Counts& counts) {
  archive(counts.weight_bytes, counts.kept_bytes, counts.other_bytes, counts.highest_offset, counts.peak_resident_bytes);
}

/// Collective.
formats::Json describe_counts(Peers& peers, const NullStorage& storage) {
  Counts mine{storage.weight_bytes(), storage.kept_bytes(), storage.other_bytes(), storage.highest_offset(), exec::peak_resident_bytes()};
  formats::Json ranks = formats::Json::array();
  for (const std::vector<std::byte>& bytes : peers.all_gather(to_archive(mine))) {
    const Counts counts = from_archive<Counts>(bytes);
    ranks.push_back({{"weight_bytes", counts.weight_bytes},
                     {"kept_bytes", counts.kept_bytes},
                     {"other_bytes", counts.other_bytes},
                     {"highest_offset", counts.highest_offset},
                     {"peak_resident_bytes", counts.peak_resident_bytes}});
  }
  return ranks;
}

formats::Json describe(const exec::MergeReport& report) {
  formats::Json ranks = formats::Json::array();
  for (const exec::RankReport& rank : report.ranks) {
    ranks.push_back({{"read_bytes", rank.read_bytes},
                     {"written_bytes", rank.written_bytes},
                     {"measure_seconds", rank.measure_seconds},
                     {"merge_seconds", rank.merge_seconds},
                     {"read_wait_seconds", rank.read_wait_seconds},
                     {"write_wait_seconds", rank.write_wait_seconds},
                     {"journal_seconds", rank.journal_seconds},
                     {"peak_memory_bytes", rank.peak_memory_bytes}});
  }
  return {{"seconds", report.total_seconds},       {"publish_seconds", report.publish_seconds}, {"read_bytes", report.read_bytes},
          {"written_bytes", report.written_bytes}, {"resumed_bytes", report.resumed_bytes},     {"reports", ranks}};
}

int run(Peers& peers, const Arguments& arguments) {
  NullStorage storage(arguments.writes);
  exec::ExecuteOptions options = arguments.run;
  options.journal_interval = std::chrono::duration<double>(arguments.journal_interval_seconds);
  options.version = "null_merge";
  options.write_model_card = false;
  const auto start = Clock::now();
  const plan::MergePlan plan = make_shared_plan(peers, storage, arguments);
  const double plan_seconds = seconds_since(start);
  const plan::Schedule schedule = plan::make_schedule(plan, peers.size());
  formats::Json result = {{"ranks", peers.size()},
                          {"threads", options.threads},
                          {"plan_seconds", plan_seconds},
                          {"operations", plan.operations.size()},
                          {"plan_bytes", plan::encode(plan).size()},
                          {"output_files", plan.output_files.size()},
                          {"input_bytes", plan.input_bytes()},
                          {"output_bytes", plan.output_bytes()}};
  int code = 0;
  try {
    exec::preflight(peers, storage, plan, arguments.output, options);
    result.update(describe(exec::execute(peers, storage, plan, schedule, arguments.output, options, [](std::span<const exec::Progress>) {
      if (is_interrupted != 0) throw Error(ErrorCode::kInterrupted, "interrupted by SIGUSR1");
    })));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kInterrupted) throw;
    code = kInterruptedExit;
    result["seconds"] = seconds_since(start);
  }
  result["interrupted"] = code != 0;
  result["storage"] = describe_counts(peers, storage);
  if (peers.rank() == 0) std::cout << result.dump() << "\n" << std::flush;
  return code;
}

int run_launched(int* argc, char*** argv, Arguments& arguments) {
  std::unique_ptr<dist::MpiSession> session;
  const bool launched = dist::started_by_launcher();
  if (launched) session = std::make_unique<dist::MpiSession>(argc, argv);
  arguments.run.baseline_resident_bytes = exec::resident_bytes();
  struct sigaction action {};
  action.sa_handler = [](int) { is_interrupted = 1; };
  action.sa_flags = SA_RESTART;
  sigaction(SIGUSR1, &action, nullptr);
  const std::unique_ptr<Peers> peers = launched ? dist::make_mpi_peers() : make_single_peer();
  try {
    return run(*peers, arguments);
  } catch (const Error& error) {
    if (peers->rank() == 0) std::fprintf(stderr, "bench_null_merge: %s\n", error.what());
    if (launched && error.code() == ErrorCode::kPeerFailed) dist::abort_world(1);
    return 1;
  }
}

}  // namespace
}  // namespace moeweld

int main(int argc, char** argv) {
  using namespace moeweld;
  Arguments arguments;
  std::string writes = "holes";
  std::string io = "direct";
  CLI::App app("A merge whose weights are written nowhere, or as holes where they are zeros");
  app.add_option("config", arguments.config, "configuration of a merge")->required();
  app.add_option("out", arguments.output, "OUT")->required();
  app.add_option("--writes", writes, "what becomes of weights: zeros as holes, or nothing at all")
      ->check(CLI::IsMember({"holes", "nothing"}));
  app.add_option("--io", io, "how inputs are read")->check(CLI::IsMember({"auto", "buffered", "direct"}));
  app.add_option("--threads", arguments.run.threads, "OpenMP threads of a rank");
  app.add_option("--memory-limit", arguments.run.memory_limit_bytes, "of a rank")->transform(CLI::AsSizeValue(false));
  app.add_option("--out-shard-size", arguments.plan.out_shard_size_bytes, "largest output file")->transform(CLI::AsSizeValue(true));
  app.add_option("--journal-interval", arguments.journal_interval_seconds, "seconds");
  std::string balance = "dynamic";
  app.add_option("--balance", balance, "whether ranks take work from one another")->check(CLI::IsMember({"static", "dynamic"}));
  app.add_flag("--resume", arguments.run.resume, "continue OUT.partial");
  app.add_flag("--force", arguments.run.force, "begin again");
  CLI11_PARSE(app, argc, argv);
  arguments.run.balance = balance == "static" ? exec::Balance::kStatic : exec::Balance::kDynamic;
  arguments.writes = writes == "holes" ? NullWrites::kHoles : NullWrites::kNothing;
  arguments.run.io = io == "auto" ? IoMode::kAuto : io == "direct" ? IoMode::kDirect : IoMode::kBuffered;
  try {
    return run_launched(&argc, &argv, arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_null_merge: %s\n", error.what());
    return 1;
  }
}
