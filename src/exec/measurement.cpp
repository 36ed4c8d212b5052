#include "exec/measurement.h"

#include <algorithm>

#include "exec/exchange.h"

namespace moeweld::exec {

namespace {

/// Results of a wave of shared measurements that are in flight at once: bounds what all_gather brings to every rank.
constexpr std::uint64_t kWaveBytes = 16 << 20;

merge::PhasePartial measure_range(std::uint32_t index, const merge::PhaseShape& phase, const merge::Decisions& decisions,
                                  std::uint64_t first_block, std::uint64_t end_block, RankPipeline& pipeline) {
  const plan::Operation& operation = pipeline.plan.operations[index];
  merge::PhasePartial partial;
  const std::vector<Unit> units = cut_blocks(pipeline.plan, index, first_block, end_block, pipeline.sizes.slot_bytes);
  UnitReader reader(pipeline.plan, units, pipeline.files, pipeline.slots, pipeline.no_speculation, pipeline.options.in_one_thread);
  for (const Unit& unit : units) {
    LoadedUnit loaded = reader.take();
    pipeline.report.read_bytes += loaded.read_bytes;
    merge::measure_blocks(
        pipeline.method_of(operation), operation.task, decisions, phase,
        {.first_element = unit.front().first_element, .num_elements = unit.front().num_elements, .inputs = loaded.sources(0)}, partial);
    pipeline.slots.release(std::move(loaded.slot));
    pipeline.progress.update(pipeline.report.read_bytes, 0);
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
      pipeline.progress.update(pipeline.report.read_bytes, 0);  // a rank without a share of this wave notices an interruption, too
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

std::vector<std::uint32_t> find_large(const plan::Schedule& schedule, int rank, const RankPipeline& pipeline) {
  // Two slots stay free for what is read while the tensor is held; its edges may take a slot more than its bytes.
  const std::size_t slots_to_hold = pipeline.sizes.num_slots - 2;
  std::vector<std::uint32_t> result;
  const auto units = cut_units(pipeline.plan, schedule.runs[static_cast<std::size_t>(rank)], pipeline.sizes.slot_bytes);
  std::map<std::uint32_t, std::size_t> units_of;
  for (const Unit& unit : units) {
    for (const Piece& piece : unit) {
      const plan::Operation& operation = pipeline.plan.operations[piece.operation];
      if (!operation.is_banded()) {
        ++units_of[piece.operation];
      } else if (!piece.is_remembered) {
        // Bands are not held: what decides them is measured before.
        units_of[operation.block_scaled ? piece.operation : operation.codes] = slots_to_hold + 1;
      }
    }
  }
  for (const auto& [index, count] : units_of) {
    if (count > slots_to_hold && needs_measuring(pipeline.plan.operations[index]) && !pipeline.decided.contains(index) &&
        !pipeline.speculative.contains(index))
      result.push_back(index);
  }
  return result;
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
  for (const std::uint32_t index : operations) {
    pipeline.decided[index] = measure_alone(index, {}, pipeline);
    pipeline.remember(std::span(&index, 1));
  }
}

}  // namespace moeweld::exec
