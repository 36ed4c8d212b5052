#include "app/job.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "app/environment.h"
#include "app/interrupt.h"
#include "app/progress.h"
#include "app/summary.h"
#include "moeweld/base/archive.h"
#include "moeweld/base/digest.h"
#include "moeweld/base/text.h"
#include "moeweld/exec/execute.h"
#include "moeweld/merge/method.h"
#include "moeweld/merge/simd_target.h"
#include "moeweld/plan/schedule.h"

namespace moeweld::app {

namespace {

constexpr std::uint64_t kMaxConfigBytes = 11'000'000;  // parse_config says what is wrong with one above 10 MB

std::vector<config::MethodInfo> known_methods() {
  std::vector<config::MethodInfo> methods;
  for (const merge::MethodRow& row : merge::method_table()) {
    config::MethodInfo method{std::string(row.name), {}, true};
    for (const merge::ParameterRow& parameter : row.shared_parameters) method.parameters.push_back({std::string(parameter.name), false});
    for (const merge::ParameterRow& parameter : row.model_parameters) method.parameters.push_back({std::string(parameter.name), true});
    methods.push_back(std::move(method));
  }
  for (const std::string_view name : merge::announced_methods()) methods.push_back({std::string(name), {}, false});
  return methods;
}

/// The plan that rank 0 made, on every rank; checked, because ranks may be of different builds.
plan::MergePlan share_plan(Peers& peers, plan::MergePlan plan) {
  std::vector<std::byte> bytes;
  if (peers.rank() == 0) bytes = plan::encode(plan);
  peers.broadcast(bytes, 0);
  Digest digest;
  agree_on(peers, [&] {
    if (peers.rank() != 0) plan = plan::decode(bytes);
    digest = digest_of(plan::encode(plan));
  });
  const std::string mine = to_hex(digest) + " moeweld " MOEWELD_VERSION;
  for (const std::vector<std::byte>& other : peers.all_gather(std::as_bytes(std::span(mine)))) {
    if (!std::ranges::equal(other, std::as_bytes(std::span(mine)))) {
      throw Error(ErrorCode::kPeerFailed,
                  "ranks do not have the same plan: their builds of moeweld differ. Start the same program on every node.");
    }
  }
  return plan;
}

/// Results do not depend on the vector instructions, so unlike processors are worth a note, not more.
std::string different_targets(Peers& peers) {
  const std::string mine = merge::active_simd_target();
  std::set<std::string> targets;
  for (const std::vector<std::byte>& bytes : peers.all_gather(std::as_bytes(std::span(mine)))) {
    targets.emplace(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  if (targets.size() == 1) return {};
  return fmt::format("ranks run on unlike processors ({}); the result does not depend on it", fmt::join(targets, ", "));
}

void announce(const plan::MergePlan& plan, const Options& options, const Log& log, const std::string& targets_note, int ranks,
              int threads) {
  if (log.is_json()) {
    log.event({{"event", "plan"},
               {"title", plan.title},
               {"tensors", plan.tensors.size()},
               {"files", plan.output_files.size()},
               {"input_bytes", plan.input_bytes()},
               {"output_bytes", plan.output_bytes()},
               {"seed", plan.seed},
               {"ranks", ranks},
               {"threads", threads}});
  } else if (!log.is_quiet()) {
    log.result(fmt::format("{}     {} tensors, {} out, {} in; {} rank{}, {} thread{} each; random seed {}\n", printable(plan.title),
                           plan.tensors.size(), format_bytes(plan.output_bytes()), format_bytes(plan.input_bytes()), ranks,
                           ranks == 1 ? "" : "s", threads, threads == 1 ? "" : "s", plan.seed));
  }
  if (const std::string text = flags_without_effect_text(options); !text.empty()) log.note(text);
  if (!targets_note.empty()) log.note(targets_note);
  for (const std::string& note : plan.notes) log.note(note);
  for (const std::string& warning : plan.warnings) log.warning(warning);
  log.detail("vector instructions: " + merge::active_simd_target());
  for (const plan::PlannedModel& model : plan.models) log.detail(model.reference + ": " + model.directory);
  for (const plan::DroppedTensor& tensor : plan.dropped)
    log.detail("not carried over: " + tensor.model + ": " + printable(tensor.name) + ": " + tensor.reason);
}

}  // namespace

plan::ModelSource make_model_source(Storage& storage, const Options& options) {
  formats::HubCacheEnvironment environment = formats::hub_cache_environment();
  if (options.hub_cache) environment.hub_cache = *options.hub_cache;
  return {storage, environment};
}

plan::MergePlan plan_config(Storage& storage, const Options& options) {
  if (!storage.identity(options.config) || storage.is_directory(options.config)) {
    throw Error(ErrorCode::kInvalidConfig, "is not a file. CONFIG is the path of a YAML file.", options.config);
  }
  const std::string text = storage.read_text(options.config, kMaxConfigBytes);
  const config::ConfigFile file = config::parse_config(text, options.config, known_methods(), {.lenient = options.lenient});
  plan::ModelSource models = make_model_source(storage, options);
  return plan::make_plan(file, models, options.plan);
}

void run_job(World& world, const Options& options, const Log& log, const std::function<plan::MergePlan(Storage&)>& make_plan) {
  Peers& peers = world.peers();
  const std::uint64_t baseline_bytes = exec::resident_bytes();
  const std::shared_ptr<Storage> storage = make_posix_storage();
  plan::MergePlan plan;
  agree_on(peers, [&] {
    if (!options.simd_target.empty()) merge::choose_simd_target(options.simd_target);
    if (world.is_root()) plan = make_plan(*storage);
  });
  plan = share_plan(peers, std::move(plan));
  const int threads = thread_count(peers, options.threads);
  const std::string targets_note = different_targets(peers);

  exec::ExecuteOptions execution;
  execution.memory_limit_bytes = options.memory_limit_bytes;
  execution.threads = threads;
  execution.io = options.io;
  execution.force = options.force;
  execution.check_finite = options.check_finite;
  execution.write_model_card = options.plan.write_model_card;
  execution.baseline_resident_bytes = baseline_bytes;
  execution.version = MOEWELD_VERSION;
  execution.command_line = options.command_line;

  const plan::Schedule schedule = plan::make_schedule(plan, peers.size());
  exec::preflight(peers, *storage, plan, options.directory, execution);
  announce(plan, options, log, targets_note, peers.size(), threads);

  exec::MergeReport report;
  {
    ProgressLine line(log, world.is_root(), plan.output_bytes());
    report = exec::execute(peers, *storage, plan, schedule, options.directory, execution, [&](const exec::Progress& progress) {
      throw_if_interrupted();
      line.show(progress);
    });
  }
  for (const std::string& note : report.notes) log.note(note);
  log.result(summary_text(report, plan, options.directory));
  log.event(summary_json(report, plan, options.directory));
}

std::string flags_without_effect_text(const Options& options) {
  if (options.flags_without_effect.empty()) return {};
  return fmt::format("no effect here: {}", fmt::join(options.flags_without_effect, ", "));
}

std::string output_state(Storage& storage, const Options& options) {
  std::string output = options.directory;
  while (output.size() > 1 && output.back() == '/') output.pop_back();
  if (output.empty() || !storage.exists(output + ".partial")) return "Nothing was written.";
  return "'" + printable(output) + ".partial' is there, incomplete; '" + printable(output) + "' was not touched.";
}

}  // namespace moeweld::app
