#include "app/run.h"

#include <fmt/format.h>

#include <cstdio>
#include <optional>

#include "app/interruption.h"
#include "app/layer_progress.h"
#include "app/progress.h"
#include "app/signs_of_life.h"
#include "app/stall_judge.h"
#include "app/statistics_output.h"
#include "app/writers.h"
#include "moeweld/base/trace.h"
#include "moeweld/exec/status.h"
#include "moeweld/merge/method.h"
#include "moeweld/plan/plan_report.h"
#include "moeweld/plan/schedule.h"
#include "moeweld/storage/job_lock.h"

namespace moeweld::app {

namespace {

constexpr std::uint64_t kLargestConfigBytes = 10'000'000;

/// Ranks must agree on what they will compute: the same program, the same plan. Their vector instructions may differ.
void agree_on_plan(Peers& peers, const plan::MergePlan& plan) {
  const std::string mine = to_hex(digest_of(plan::encode(plan))) + " " + MOEWELD_VERSION;
  const auto all = peers.all_gather(std::as_bytes(std::span(mine)));
  ProblemList problems;
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    const std::string theirs(reinterpret_cast<const char*>(all[rank].data()), all[rank].size());
    if (theirs == mine) continue;
    problems.add(Problem{
        ErrorCode::kPeerFailed, "rank " + std::to_string(rank) + " has another plan or runs another version of moeweld", {}, 0, {}});
    break;
  }
  agree(peers, problems);
}

/// On rank 0; nothing elsewhere. Collective; throws the same Error on every rank.
std::unique_ptr<JobLock> take_lock(Peers& peers, Storage& storage, const std::string& output) {
  std::unique_ptr<JobLock> lock;
  agree_on(peers, [&] {
    if (peers.rank() != 0) return;
    const std::string path = exec::lock_path(output);
    if (const std::size_t slash = path.find_last_of('/'); slash != std::string::npos && slash != 0)
      storage.make_directories(path.substr(0, slash));
    const trace::Span span(trace::Kind::kWrite, "take the lock", 0, path);
    lock = std::make_unique<JobLock>(path);
  });
  return lock;
}

/// A job that died between publishing OUT and its own end has left its lock and heartbeats.
void remove_dead_lock(const std::string& output) noexcept {
  try {
    const std::string path = exec::lock_path(output);
    const std::optional<LockState> state = look_at_lock(path);
    if (!state || !state->is_dead) return;
    const JobLock taken_over(path);
    HeartbeatFile(exec::heartbeat_path(output)).remove();
  } catch (...) {  // OUT is complete with it, and who may not write there need not
  }
}

/// Nothing for one rank, which nobody waits for. Collective; throws the same Error on every rank.
std::unique_ptr<SignsOfLife> make_signs_of_life(Peers& peers, const Options& options) {
  const std::string path = exec::heartbeat_path(options.output);
  if (peers.size() > 1 && options.stall_timeout_seconds > 0)
    return std::make_unique<SignsOfLife>(peers, path, std::chrono::duration<double>(options.stall_timeout_seconds) / kBeatsPerTimeout);
  // An earlier job's, which was killed.
  if (peers.rank() == 0) HeartbeatFile(path).remove();
  return nullptr;
}

}  // namespace

std::vector<config::MethodInfo> method_infos() {
  std::vector<config::MethodInfo> result;
  for (const merge::MethodRow& row : merge::method_table()) {
    if (row.internal) continue;
    config::MethodInfo info;
    info.name = row.name;
    for (const merge::ParameterRow& parameter : row.shared_parameters) info.parameters.push_back({std::string(parameter.name), false});
    for (const merge::ParameterRow& parameter : row.model_parameters) info.parameters.push_back({std::string(parameter.name), true});
    result.push_back(std::move(info));
  }
  for (const std::string_view name : merge::announced_methods()) result.push_back({std::string(name), {}, false});
  return result;
}

formats::HubCacheEnvironment hub_cache(const Options& options) {
  formats::HubCacheEnvironment environment = formats::hub_cache_environment();
  if (!options.transformers_cache.empty()) environment.hub_cache = options.transformers_cache;
  return environment;
}

plan::MergePlan plan_configuration(Storage& storage, const Options& options) {
  if (!storage.exists(options.input)) throw Error(ErrorCode::kInvalidConfig, "there is no such configuration file", options.input);
  const std::string text = storage.read_text(options.input, kLargestConfigBytes);
  const config::ConfigFile file = config::parse_config(text, options.input, method_infos(), {.lenient = options.lenient});
  plan::ModelSource models(storage, hub_cache(options));
  plan::MergePlan plan = plan::make_plan(file, models, options.plan);
  if (!options.without_effect.empty()) {
    std::string flags;
    for (const std::string& flag : options.without_effect) flags += (flags.empty() ? "" : ", ") + flag;
    plan.notes.push_back("accepted, without effect here: " + flags);
  }
  return plan;
}

plan::MergePlan share_plan(Peers& peers, const std::function<plan::MergePlan()>& make) {
  std::vector<std::byte> bytes;
  agree_on(peers, [&] {
    if (peers.rank() == 0) bytes = plan::encode(make());
  });
  peers.broadcast(bytes, 0);
  plan::MergePlan plan = plan::decode(bytes);
  agree_on_plan(peers, plan);
  return plan;
}

void execute_plan(Peers& peers, Storage& storage, const plan::MergePlan& plan, const Options& options) {
  exec::ExecuteOptions run;
  run.baseline_resident_bytes = options.baseline_resident_bytes;
  run.memory_limit_bytes = options.memory_limit_bytes;
  run.threads = options.threads;
  run.io = options.io;
  run.force = options.force;
  run.resume = options.resume;
  run.journal_interval = std::chrono::duration<double>(options.journal_interval_seconds);
  run.check_finite = options.check_finite;
  run.gather_statistics = !options.stats_file.empty();
  run.write_model_card = options.plan.write_model_card;
  run.version = MOEWELD_VERSION;
  run.command_line = options.command_line;

  if (options.resume && exec::is_published(peers, storage, plan, options.output, run)) {
    if (peers.rank() != 0) return;
    remove_dead_lock(options.output);
    if (!options.quiet) fmt::print("{}", options.log_json ? already_complete_json(options.output) : already_complete_text(options.output));
    if (!options.stats_file.empty()) {
      std::fflush(stdout);
      fmt::print(stderr, "moeweld: {} was not written: nothing was computed, so there are no statistics\n", options.stats_file);
    }
    return;
  }
  const plan::Schedule schedule = plan::make_schedule(plan, peers.size());
  const std::unique_ptr<exec::OutputWriter> writer = make_output_writer(peers, storage, plan, options);
  run.writer = writer.get();
  run.balance = options.is_balanced ? exec::Balance::kDynamic : exec::Balance::kStatic;
  ProblemList problems;
  if (peers.rank() == 0 && run.gather_statistics) problems.attempt([&] { check_statistics_path(storage, options.stats_file); });
  problems.attempt([&] { exec::preflight(peers, storage, plan, options.output, run); });
  agree(peers, problems);
  const std::unique_ptr<JobLock> lock = take_lock(peers, storage, options.output);
  const std::unique_ptr<SignsOfLife> signs_of_life = make_signs_of_life(peers, options);
  const bool speaks = peers.rank() == 0 && !options.quiet;
  if (speaks && !options.log_json) {
    fmt::print("{}", plan::plan_text(plan, schedule,
                                     exec::planned_memory_bytes(plan, run.memory_limit_bytes, run.threads, run.gather_statistics), false));
    std::fflush(stdout);
  }
  LayerProgress layers(options.log_json, !speaks);
  run.on_layer = [&](std::size_t step, std::size_t num_steps) {
    stop_if_interrupted();
    layers.update(step, num_steps);
  };
  ProgressPrinter printer(options.log_json, !speaks);
  exec::MergeReport report = exec::execute(peers, storage, plan, schedule, options.output, run, [&](std::span<const exec::Progress> ranks) {
    stop_if_interrupted();
    if (lock) lock->check();
    layers.finish();
    printer.update(ranks);
  });
  printer.finish();
  if (speaks)
    fmt::print("{}", options.log_json ? summary_json(report, plan.num_files(), options.output)
                                      : summary_text(report, plan.num_files(), options.output));
  if (!run.gather_statistics) return;
  agree_on(peers, [&] {
    if (peers.rank() == 0) write_statistics_file(storage, plan, report, options);
  });
  if (speaks && !options.log_json) fmt::print("{}", statistics_text(report, options.stats_file));
}

}  // namespace moeweld::app
