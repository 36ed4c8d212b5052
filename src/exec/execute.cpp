#include "moeweld/exec/execute.h"

#include <omp.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "exec/clock.h"
#include "exec/exchange.h"
#include "exec/expert_weights.h"
#include "exec/main_pass.h"
#include "exec/measurement.h"
#include "exec/prepare.h"
#include "exec/publish.h"
#include "exec/rank_pipeline.h"
#include "exec/restart.h"
#include "exec/shared_portions.h"
#include "exec/unchanged_inputs.h"
#include "moeweld/base/trace.h"
#include "moeweld/exec/output_writer.h"
#include "moeweld/infer/blas_core.h"
#include "moeweld/merge/simd_target.h"
#include "moeweld/plan/alignment.h"
#include "moeweld/plan/portions.h"

namespace moeweld::exec {

template <class Archive>
void serialize(Archive& archive, RankReport& value) {
  archive(value.read_bytes, value.written_bytes, value.measure_seconds, value.merge_seconds, value.read_wait_seconds,
          value.write_wait_seconds, value.journal_seconds, value.peak_memory_bytes, value.taken_bytes, value.num_asked,
          value.longest_answer_seconds);
}

namespace {

/// What a rank tells the others at the end.
struct RankOutcome {
  RankReport report;
  std::string simd_target;
  std::string blas_core;
  std::vector<RunDigests> digests;
  std::vector<std::uint32_t> with_nan_codes;  ///< operations
};

template <class Archive>
void serialize(Archive& archive, RankOutcome& value) {
  archive(value.report, value.simd_target, value.blas_core, value.digests, value.with_nan_codes);
}

/// Empty where no tensor has any.
std::string nan_warning(const plan::MergePlan& plan, const std::set<std::uint32_t>& operations) {
  if (operations.empty()) return {};
  const std::string others = operations.size() == 1 ? "" : " and " + std::to_string(operations.size() - 1) + " more";
  return "codes of block-scaled FP8 are NaN in what makes '" + plan.operations[*operations.begin()].name + "'" + others +
         ", and the output has NaN there";
}

/// Shows in a trace.
template <typename Work>
auto in_stage(const char* name, Work&& work) {
  const trace::Span span(trace::Kind::kStage, name);
  return work();
}

void finish_quietly(WorldProgress& progress) noexcept {
  try {
    progress.finish();
  } catch (...) {  // the first error is the one to report
  }
}

/// Says to a writer whose ranks wait for each other how this rank's work ended, whichever way it did.
void telling_writer(OutputWriter* writer, const std::function<void()>& work) {
  if (writer == nullptr) return work();
  ProblemList problems;
  try {
    work();
  } catch (const Error& error) {
    problems.add(error);
  } catch (const std::exception& error) {
    problems.add(Problem{ErrorCode::kInternal, std::string("a rank failed unexpectedly: ") + error.what(), "", 0, ""});
  }
  writer->finish_writing(problems);
  problems.throw_if_any();
}

/// An exchange that every rank ends by finishing the progress, however its own part went.
std::vector<std::vector<std::byte>> exchange_finishing(Peers& peers, WorldProgress& progress,
                                                       const std::function<std::vector<std::byte>()>& produce) {
  return exchange(peers, [&] {
    std::vector<std::byte> mine;
    try {
      mine = produce();
    } catch (...) {
      finish_quietly(progress);
      throw;
    }
    progress.finish();
    return mine;
  });
}

void remove_partial_quietly(Peers& peers, Storage& storage, const std::string& partial) noexcept {
  try {
    if (peers.rank() == 0) remove_partial(storage, partial);
  } catch (...) {  // the first error is the one to report
  }
}

/// On rank 0; nothing elsewhere.
std::vector<TensorStatistics> put_together(Peers& peers, const plan::MergePlan& plan, StatisticsPart mine) {
  StatisticsAssembler assembler(plan);
  std::vector<TensorStatistics> result;
  ProblemList problems;
  for (int rank = 0; rank < peers.size(); ++rank) {
    // One rank's part at a time, so that no rank holds all.
    std::vector<std::byte> bytes;
    if (rank == peers.rank()) bytes = to_archive(std::exchange(mine, {}));
    peers.broadcast(bytes, rank);
    if (peers.rank() == 0) problems.attempt([&] { assembler.add(from_archive<StatisticsPart>(bytes)); });
  }
  if (peers.rank() == 0) problems.attempt([&] { result = assembler.finish(); });
  agree(peers, problems);
  return result;
}

PreparedSlots prepare(Peers& peers, Storage& storage, const plan::MergePlan& plan, const ExecuteOptions& options, Start& start,
                      Journal& journal) {
  if (start.slots) return std::move(*start.slots);
  PreparedSlots prepared = prepare_slots(peers, storage, plan, options);
  if (plan.slots.empty() && plan.alignments.empty()) return prepared;
  // Before anything that depends on them is on stable storage: a processor of another kind might make other ones.
  agree_on(peers, [&] {
    if (peers.rank() == 0) journal.append(prepared);
  });
  return prepared;
}

}  // namespace

bool can_be_resumed(const Error& error) {
  switch (error.code()) {
    case ErrorCode::kInterrupted:
    case ErrorCode::kIo:
    case ErrorCode::kNoSpace:
    case ErrorCode::kPeerFailed:
    case ErrorCode::kInternal:
      return true;
    default:
      return false;
  }
}

MergeReport execute(Peers& peers, Storage& storage, const plan::MergePlan& plan, const plan::Schedule& whole_schedule,
                    const std::string& output_directory, const ExecuteOptions& options, const ProgressCallback& progress) {
  const auto start = Clock::now();
  omp_set_num_threads(std::max(1, options.threads));
  const std::string partial = partial_directory(output_directory);
  MergeReport report;
  Start begin = start_or_resume(peers, storage, plan, partial, options);
  report.resumed_bytes = begin.finished_bytes;
  const plan::Schedule schedule = begin.is_resumed ? plan::make_schedule(plan, peers.size(), begin.remaining) : whole_schedule;
  Journal journal(storage, journal_directory(partial), begin.attempt, peers.rank());
  const bool is_dynamic = options.balance == Balance::kDynamic && options.writer == nullptr && peers.size() > 1;
  WorldProgress world_progress(peers, plan, schedule, is_dynamic, progress);
  try {
    if (options.writer != nullptr) options.writer->open(partial, plan, schedule);
    auto stage = Clock::now();
    PreparedSlots prepared = in_stage("prepare", [&] { return prepare(peers, storage, plan, options, begin, journal); });
    std::optional<plan::MergePlan> ordered;
    if (!plan.alignments.empty()) ordered = plan::with_orders(plan, prepared.expert_orders.orders);
    RankPipeline pipeline(storage, ordered ? *ordered : plan, options, world_progress);
    pipeline.journal = &journal;
    for (Decided& decided : begin.decided) pipeline.decided[decided.operation] = std::move(decided.decisions);
    pipeline.slot_rows = std::move(prepared.rows);
    decide_expert_weights(pipeline);
    report.warnings = std::move(prepared.warnings);
    if (!begin.warning.empty()) report.warnings.push_back(begin.warning);
    report.prepare_seconds = seconds_since(stage);

    stage = Clock::now();
    in_stage("measure shared tensors", [&] { measure_shared(peers, schedule, pipeline); });
    plan::Portions portions;
    std::unique_ptr<WorkBoard> board;
    if (is_dynamic) {
      portions = plan::make_portions(plan, schedule, options.portion_bytes);
      board = peers.make_work_board(portions.first_portion, !portions.has_free_borders);
    }
    pipeline.report.measure_seconds = seconds_since(stage);
    stage = Clock::now();
    const std::vector<std::vector<std::byte>> outcomes = exchange_finishing(peers, world_progress, [&] {
      RankOutcome outcome;
      telling_writer(options.writer, [&] {
        const auto merge = [&](WorkSource& work) {
          const double measured_before = pipeline.report.measure_seconds;
          outcome.digests = in_stage("merge", [&] { return run_main_pass(work, partial, pipeline); });
          pipeline.report.merge_seconds = seconds_since(stage) - (pipeline.report.measure_seconds - measured_before);
        };
        if (board) return work_on_portions(*board, portions, peers.rank(), pipeline, merge);
        WholeShare share(schedule.runs[static_cast<std::size_t>(peers.rank())]);
        merge(share);
      });
      const std::uint64_t peak = peak_resident_bytes();
      pipeline.report.peak_memory_bytes = peak > options.baseline_resident_bytes ? peak - options.baseline_resident_bytes : 0;
      outcome.report = pipeline.report;
      outcome.simd_target = merge::active_simd_target();
      outcome.blas_core = infer::blas_core();
      outcome.with_nan_codes.assign(pipeline.with_nan_codes.begin(), pipeline.with_nan_codes.end());
      return to_archive(outcome);
    });

    if (options.gather_statistics) {
      report.statistics = in_stage("gather statistics", [&] { return put_together(peers, plan, std::move(pipeline.statistics)); });
    }
    stage = Clock::now();
    if (options.writer != nullptr) options.writer->close();
    std::vector<RunDigests> digests = std::move(begin.finished);
    std::vector<std::string> simd_targets;
    // Where the bytes depend on it the ranks have agreed by now; elsewhere they may differ, and then none is recorded.
    std::set<std::string> blas_cores;
    std::set<std::uint32_t> with_nan_codes;
    for (const std::vector<std::byte>& bytes : outcomes) {
      RankOutcome outcome = from_archive<RankOutcome>(bytes);
      report.read_bytes += outcome.report.read_bytes;
      report.written_bytes += outcome.report.written_bytes;
      report.ranks.push_back(outcome.report);
      simd_targets.push_back(std::move(outcome.simd_target));
      blas_cores.insert(std::move(outcome.blas_core));
      with_nan_codes.insert(outcome.with_nan_codes.begin(), outcome.with_nan_codes.end());
      std::move(outcome.digests.begin(), outcome.digests.end(), std::back_inserter(digests));
    }
    if (std::string warning = nan_warning(plan, with_nan_codes); !warning.empty()) report.warnings.push_back(std::move(warning));
    std::string blas_core = prepared.blas_core;  // of router rows, which an earlier run may have computed
    if (blas_core.empty() && blas_cores.size() == 1) blas_core = *blas_cores.begin();
    agree_on(peers, [&] {
      if (peers.rank() == 0)
        in_stage("publish", [&] {
          // What is not what was planned may have been read before it was that, or after.
          require_unchanged_inputs(storage, plan, "the merge began");
          digest_own_metadata(storage, plan, partial, digests);
          publish(storage, plan, combine_digests(plan, digests), {simd_targets, blas_core, &prepared.expert_orders}, output_directory,
                  options);
        });
    });
    report.publish_seconds = seconds_since(stage);
  } catch (const Error& error) {
    // The same Error on every rank, so that all come to finish, unless the transport broke.
    if (error.code() != ErrorCode::kPeerFailed) {
      finish_quietly(world_progress);
      if (options.writer != nullptr) options.writer->abandon();
    }
    if (!can_be_resumed(error)) remove_partial_quietly(peers, storage, partial);
    throw;
  }
  report.total_seconds = seconds_since(start);
  return report;
}

}  // namespace moeweld::exec
