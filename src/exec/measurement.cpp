#include "exec/measurement.h"

#include <algorithm>

#include "exec/exchange.h"
#include "moeweld/base/trace.h"

namespace moeweld::exec {

namespace {

/// Results of a wave of shared measurements that are in flight at once: bounds what all_gather brings to every rank.
constexpr std::uint64_t kWaveBytes = 16 << 20;

merge::PhasePartial measure_range(std::uint32_t index, const merge::PhaseShape& phase, const merge::Decisions& decisions,
                                  std::uint64_t first_block, std::uint64_t end_block, RankPipeline& pipeline) {
  const plan::Operation& operation = pipeline.plan.operations[index];
  merge::PhasePartial partial;
  UnitReader reader(pipeline.plan, pipeline.files, pipeline.slots, pipeline.options.in_one_thread);
  reader.add(cut_blocks(pipeline.plan, index, first_block, end_block, pipeline.sizes.slot_bytes));
  while (reader.num_left() != 0) {
    LoadedUnit loaded = reader.take();
    const Piece& piece = loaded.pieces.front();
    pipeline.report.read_bytes += loaded.read_bytes;
    merge::measure_blocks(pipeline.method_of(operation), operation.task, decisions, phase,
                          {.first_element = piece.first_element, .num_elements = piece.num_elements, .inputs = loaded.sources(0)}, partial);
    pipeline.slots.release(std::move(loaded.slot));
    pipeline.report_progress();
  }
  return partial;
}

std::uint64_t result_bytes(const plan::SharedMeasurement& measurement, const plan::MergePlan& plan) {
  const plan::Operation& operation = plan.operations[measurement.operation];
  const auto phase = merge::method_table()[operation.method].next_phase(operation.task, {});
  const std::uint64_t sums =
      phase->has_sums ? merge::num_blocks(operation.task.elements()) * operation.sources.size() * operation.sources.size() : 0;
  return (phase->num_counts * measurement.ranks.size() + sums) * sizeof(double);
}

/// What one rank contributes to one phase of one operation of the wave.
struct Contribution {
  std::uint32_t operation = 0;
  merge::PhasePartial partial;
};

template <class Archive>
void serialize(Archive& archive, Contribution& value) {
  archive(value.operation, value.partial);
}

void measure_wave(Peers& peers, std::span<const plan::SharedMeasurement> wave, RankPipeline& pipeline) {
  const auto next_phase = [&](std::uint32_t index) {
    const plan::Operation& operation = pipeline.plan.operations[index];
    return pipeline.method_of(operation).next_phase(operation.task, pipeline.decided[index]);
  };
  while (std::any_of(wave.begin(), wave.end(), [&](const auto& measurement) { return next_phase(measurement.operation).has_value(); })) {
    const auto gathered = exchange(peers, [&] {
      pipeline.report_progress();  // a rank without a share of this wave notices an interruption, too
      std::vector<Contribution> mine;
      for (const plan::SharedMeasurement& measurement : wave) {
        const auto phase = next_phase(measurement.operation);
        if (!phase) continue;
        for (std::size_t i = 0; i < measurement.ranks.size(); ++i) {
          if (measurement.ranks[i] != peers.rank()) continue;
          mine.push_back({measurement.operation, measure_range(measurement.operation, *phase, pipeline.decided[measurement.operation],
                                                               measurement.first_block[i], measurement.first_block[i + 1], pipeline)});
        }
      }
      return to_archive(mine);
    });
    std::map<std::uint32_t, std::vector<merge::PhasePartial>> partials;
    for (const std::vector<std::byte>& bytes : gathered) {
      for (Contribution& contribution : from_archive<std::vector<Contribution>>(bytes)) {
        partials[contribution.operation].push_back(std::move(contribution.partial));
      }
    }
    // Every rank decides for itself: from equal results, by the same float64 arithmetic of moeweld's own.
    for (auto& [index, parts] : partials) {
      const plan::Operation& operation = pipeline.plan.operations[index];
      merge::decide_phase(pipeline.method_of(operation), operation.task, *next_phase(index), std::move(parts), pipeline.decided[index]);
    }
  }
}

}  // namespace

void measure_shared(Peers& peers, const plan::Schedule& schedule, RankPipeline& pipeline) {
  const std::span<const plan::SharedMeasurement> all = schedule.measurements;
  for (std::size_t first = 0; first < all.size();) {
    std::size_t end = first;
    std::uint64_t bytes = 0;
    do {
      bytes += result_bytes(all[end], pipeline.plan);
      ++end;
    } while (end < all.size() && bytes + result_bytes(all[end], pipeline.plan) <= kWaveBytes);
    std::vector<std::uint32_t> open;
    for (const plan::SharedMeasurement& measurement : all.subspan(first, end - first)) {
      if (!pipeline.decided.contains(measurement.operation)) open.push_back(measurement.operation);
    }
    measure_wave(peers, all.subspan(first, end - first), pipeline);
    agree_on(peers, [&] {
      if (peers.rank() == 0) pipeline.remember(open);
    });
    first = end;
  }
}

merge::Decisions measure_alone(std::uint32_t index, merge::Decisions decisions, RankPipeline& pipeline) {
  const plan::Operation& operation = pipeline.plan.operations[index];
  const merge::MethodRow& method = pipeline.method_of(operation);
  while (const auto phase = method.next_phase(operation.task, decisions)) {
    std::vector<merge::PhasePartial> partials;
    partials.push_back(measure_range(index, *phase, decisions, 0, merge::num_blocks(operation.task.elements()), pipeline));
    merge::decide_phase(method, operation.task, *phase, std::move(partials), decisions);
  }
  return decisions;
}

void measure_large(const std::vector<std::uint32_t>& operations, RankPipeline& pipeline) {
  if (operations.empty()) return;
  const trace::Span span(trace::Kind::kStage, "measure large tensors");
  for (const std::uint32_t index : operations) {
    pipeline.decided[index] = measure_alone(index, {}, pipeline);
    pipeline.remember(std::span(&index, 1));
  }
}

}  // namespace moeweld::exec
