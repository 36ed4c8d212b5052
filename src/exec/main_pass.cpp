#include "exec/main_pass.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <utility>

#include "exec/block_scaled_bands.h"
#include "exec/clock.h"
#include "exec/generated_rows.h"
#include "exec/measurement.h"
#include "exec/unit_stream.h"
#include "moeweld/base/checked.h"
#include "moeweld/base/trace.h"
#include "moeweld/merge/block_scales.h"

namespace moeweld::exec {

namespace {

/// So many units are left when more work is asked for: reading them takes some milliseconds, and so may the answer. What is asked for early
/// nobody else can take.
constexpr std::size_t kAskAheadUnits = 2 * kReadAheadUnits;

class MainPass {
 public:
  MainPass(WorkSource& work, const std::string& directory, RankPipeline& pipeline)
      : work_(work),
        pipeline_(pipeline),
        plan_(pipeline.plan),
        stream_(pipeline),
        writer_(pipeline.storage, plan_, directory, pipeline.options.io, pipeline.windows, pipeline.keeping(), pipeline.options.writer),
        statistics_(pipeline.plan) {}

  std::vector<RunDigests> run() {
    UnitReader reader(plan_, pipeline_.files, pipeline_.slots, pipeline_.options.in_one_thread);
    const std::size_t ahead = pipeline_.options.in_one_thread ? 0 : kAskAheadUnits;
    while (true) {
      while (reader.num_left() <= (work_.next_is_others() ? 0 : ahead) && supply(reader)) {
      }
      if (reader.num_left() == 0) break;
      const auto start = Clock::now();
      LoadedUnit unit = reader.take();
      pipeline_.report.read_wait_seconds += seconds_since(start);
      pipeline_.report.read_bytes += unit.read_bytes;
      if (unit.pieces.front().only_measures) {
        measure_only(std::move(unit));
        report_progress();
        continue;
      }
      Resident& resident = residents_.emplace_back(std::move(unit), 0);
      resident.pieces_left = resident.unit.pieces.size();
      pipeline_.look_at_values(resident.unit);
      for (const std::uint32_t index : resident.unit.with_nan_codes) {
        const plan::Operation& operation = plan_.operations[index];
        pipeline_.with_nan_codes.insert(operation.kind == plan::Operation::Kind::kBlockScales ? operation.codes : index);
      }
      const std::size_t num_pieces = resident.unit.pieces.size();
      for (std::size_t piece = 0; piece < num_pieces; ++piece) arrive(resident, piece);
      release_finished();
      report_progress();
    }
    while (num_headers_ < runs_.size()) write_header(runs_[num_headers_++]);
    writer_.finish();
    pipeline_.statistics = statistics_.take();
    pipeline_.report.written_bytes = writer_.written_bytes();
    pipeline_.report.write_wait_seconds += writer_.wait_seconds();
    pipeline_.report.journal_seconds = writer_.journal_seconds();
    report_progress();
    return writer_.digests();
  }

 private:
  /// Gives the reader more to read. False if there is no more, or none for now: while it has something left nothing is waited for.
  bool supply(UnitReader& reader) {
    if (!batch_) batch_ = stream_.next();
    if (batch_) {
      if (!batch_->to_measure.empty()) {
        // What measures reads into the same slots, so all of them have to be free.
        if (reader.num_left() != 0) return false;
        const auto start = Clock::now();
        measure_large(std::exchange(batch_->to_measure, {}), pipeline_);
        pipeline_.report.measure_seconds += seconds_since(start);
      }
      reader.add(std::move(std::exchange(batch_, {})->units));
      return true;
    }
    if (has_all_) return false;
    const std::optional<std::span<const plan::FileRun>> runs = work_.take(reader.num_left() == 0);
    if (!runs) return false;
    for (const plan::FileRun& run : *runs) {
      runs_.push_back(run);
      writer_.add_run(run);
    }
    stream_.add(*runs);
    if (runs->empty()) {
      has_all_ = true;
      stream_.close();
    }
    return true;
  }

  /// A unit of one operation that is decided with its last unit, and read again to be applied.
  void measure_only(LoadedUnit unit) {
    const auto start = Clock::now();
    const Piece& piece = unit.pieces.front();
    const plan::Operation& operation = plan_.operations[piece.operation];
    const merge::MethodRow& method = pipeline_.method_of(operation);
    const auto phase = method.next_phase(operation.task, {});
    merge::measure_blocks(method, operation.task, {}, *phase,
                          {.first_element = piece.first_element, .num_elements = piece.num_elements, .inputs = unit.sources(0)},
                          measured_alone_);
    if (piece.is_last) {
      std::vector<merge::PhasePartial> partials;
      partials.push_back(std::exchange(measured_alone_, {}));
      merge::decide_phase(method, operation.task, *phase, std::move(partials), pipeline_.decided[piece.operation]);
      pipeline_.remember(std::span(&piece.operation, 1));
    }
    pipeline_.slots.release(std::move(unit.slot));
    pipeline_.report.measure_seconds += seconds_since(start);
  }

  /// A unit in memory until all its pieces are applied.
  struct Resident {
    LoadedUnit unit;
    std::size_t pieces_left = 0;
  };
  struct HeldPiece {
    Resident* resident = nullptr;
    std::size_t piece = 0;
  };

  static merge::Elements elements_of(const HeldPiece& held) {
    const Piece& piece = held.resident->unit.pieces[held.piece];
    return {.first_element = piece.first_element, .num_elements = piece.num_elements, .inputs = held.resident->unit.sources(held.piece)};
  }

  void arrive(Resident& resident, std::size_t index) {
    const Piece& piece = resident.unit.pieces[index];
    const plan::Operation& operation = plan_.operations[piece.operation];
    if (operation.is_banded()) return write_bands(resident, index);
    if (!needs_measuring(operation) || pipeline_.decided.contains(piece.operation)) {
      const auto found = pipeline_.decided.find(piece.operation);
      apply(resident, index, found == pipeline_.decided.end() ? merge::Decisions{} : found->second);
      return;
    }
    if (pipeline_.speculative.contains(piece.operation)) return speculate(resident, index);
    held_.push_back({&resident, index});
    const merge::MethodRow& method = pipeline_.method_of(operation);
    const auto first_phase = method.next_phase(operation.task, {});
    merge::measure_blocks(method, operation.task, {}, *first_phase, elements_of(held_.back()), partial_);
    if (!piece.is_last) return;

    merge::Decisions decisions;
    bool is_measured = true;  // the first phase was, as the pieces came in
    for (auto phase = first_phase; phase; phase = method.next_phase(operation.task, decisions)) {
      for (std::size_t i = 0; !is_measured && i < held_.size(); ++i) {
        merge::measure_blocks(method, operation.task, decisions, *phase, elements_of(held_[i]), partial_);
      }
      is_measured = false;
      std::vector<merge::PhasePartial> partials;
      partials.push_back(std::exchange(partial_, {}));
      merge::decide_phase(method, operation.task, *phase, std::move(partials), decisions);
    }
    for (const HeldPiece& held : std::exchange(held_, {})) {
      apply(*held.resident, held.piece, decisions);
      if (held.resident != &resident) release_finished();
    }
  }

  void apply(Resident& resident, std::size_t index, const merge::Decisions& decisions) {
    const std::uint32_t number = resident.unit.pieces[index].operation;
    const plan::Operation& operation = plan_.operations[number];
    const bool gathers = pipeline_.options.gather_statistics && has_statistics(plan_, number);
    fill(resident, index, [&](const merge::Elements& elements, std::byte* target) {
      compute(operation, decisions, elements, target);
      if (gathers) statistics_.add(number, elements, target);
    });
  }

  /// A piece of a block-scaled operation or of its scales.
  void write_bands(Resident& resident, std::size_t index) {
    const Piece& piece = resident.unit.pieces[index];
    const bool is_codes = plan_.operations[piece.operation].block_scaled;
    const std::uint32_t codes = is_codes ? piece.operation : plan_.operations[piece.operation].codes;
    const plan::Operation& operation = plan_.operations[codes];
    const auto found = pipeline_.decided.find(codes);
    const std::uint64_t columns = operation.task.shape.at(1);
    const std::uint64_t band_elements = kScaleBlock * columns;
    const std::uint64_t band_results = is_codes ? band_elements : merge::num_scale_blocks(columns);
    std::vector<const std::byte*> inputs(resident.unit.sources(index).begin(), resident.unit.sources(index).end());
    for (std::uint64_t done = 0; done < piece.num_elements; done += band_elements) {
      const std::uint64_t first = piece.first_element + done;
      const std::uint64_t band = first / band_elements;
      if (piece.is_remembered) {
        write_results(piece, std::as_bytes(std::span(scales_.at({codes, band}))), band * band_results);
        continue;
      }
      const std::uint64_t count = std::min(band_elements, piece.num_elements - done);
      std::vector<float> scales = bands_.compute(pipeline_.method_of(operation), operation.task,
                                                 found == pipeline_.decided.end() ? merge::Decisions{} : found->second,
                                                 {.first_element = first, .num_elements = count, .inputs = inputs});
      if (is_codes && pipeline_.options.gather_statistics)
        look_at_band(piece, {.first_element = first, .num_elements = count, .inputs = inputs}, scales);
      for (std::size_t i = 0; i < inputs.size(); ++i) inputs[i] += count * size_bytes(operation.sources[i].dtype);
      if (is_codes) {
        write_results(piece, bands_.codes(), band * band_results);
        scales_[{codes, band}] = std::move(scales);
      } else {
        write_results(piece, std::as_bytes(std::span(scales)), band * band_results);
      }
    }
    if (!is_codes) {
      // The last band may go on in the next run.
      const std::uint64_t num_written = (piece.first_result + piece.num_results) / band_results;
      const bool is_end = piece.first_element + piece.num_elements == operation.task.elements();
      scales_.erase(scales_.lower_bound({codes, 0}), scales_.lower_bound({codes + (is_end ? 1 : 0), is_end ? 0 : num_written}));
    }
    --resident.pieces_left;
  }

  /// Statistics of the part of a band that the piece writes: of the values that its codes and scales stand for.
  void look_at_band(const Piece& piece, const merge::Elements& band, const std::vector<float>& scales) {
    const plan::Operation& operation = plan_.operations[piece.operation];
    const std::uint64_t columns = operation.task.shape.at(1);
    const std::uint64_t begin = std::max(piece.first_result, band.first_element);
    const std::uint64_t end = std::min(piece.first_result + piece.num_results, band.first_element + band.num_elements);
    if (begin >= end) return;
    band_values_.resize(band.num_elements);
    for (std::uint64_t row = 0; row < band.num_elements; row += columns) {
      merge::decode_block_scaled(bands_.codes().data() + row, 0, scales.data(), std::span(band_values_).subspan(row, columns));
    }
    const std::uint64_t offset = begin - band.first_element;
    std::vector<const std::byte*> inputs(band.inputs.begin(), band.inputs.end());
    for (std::size_t i = 0; i < inputs.size(); ++i) inputs[i] += offset * size_bytes(operation.sources[i].dtype);
    statistics_.add(piece.operation, {.first_element = begin, .num_elements = end - begin, .inputs = inputs},
                    reinterpret_cast<const std::byte*>(band_values_.data() + offset));
  }

  /// The part of a band's results, of which `first` is the first, that the piece writes.
  void write_results(const Piece& piece, std::span<const std::byte> results, std::uint64_t first) {
    const plan::Operation& operation = plan_.operations[piece.operation];
    const std::size_t element_size = size_bytes(operation.result_dtype());
    const plan::Destination place = plan::destination(plan_, operation);
    const std::uint64_t begin = std::max(piece.first_result, first);
    const std::uint64_t end = std::min(piece.first_result + piece.num_results, first + results.size() / element_size);
    if (begin >= end) return;
    std::span<const std::byte> rest = results.subspan((begin - first) * element_size, (end - begin) * element_size);
    std::uint64_t offset = place.begin + begin * element_size;
    write_headers_up_to(place.file, offset);
    while (!rest.empty()) {
      const std::span<std::byte> target = writer_.reserve(place.file, offset, rest.size());
      std::memcpy(target.data(), rest.data(), target.size());
      writer_.commit(target.size());
      rest = rest.subspan(target.size());
      offset += target.size();
    }
  }

  /// Calls work(elements, target) for the parts of a piece that fit the output windows.
  template <class Work>
  void fill(Resident& resident, std::size_t index, Work&& work) {
    const Piece& piece = resident.unit.pieces[index];
    const plan::Operation& operation = plan_.operations[piece.operation];
    const std::size_t element_size = size_bytes(operation.task.output_dtype);
    const plan::Destination place = plan::destination(plan_, operation);
    std::vector<const std::byte*> inputs(resident.unit.sources(index).begin(), resident.unit.sources(index).end());
    const std::uint64_t begin = place.begin + piece.first_element * element_size;
    write_headers_up_to(place.file, begin);
    for (std::uint64_t done = 0; done < piece.num_elements;) {
      const std::span<std::byte> target =
          writer_.reserve(place.file, begin + done * element_size, (piece.num_elements - done) * element_size);
      const std::uint64_t count = target.size() / element_size;
      work(merge::Elements{.first_element = piece.first_element + done, .num_elements = count, .inputs = inputs}, target.data());
      writer_.commit(count * element_size);
      for (std::size_t i = 0; i < inputs.size(); ++i) inputs[i] += count * size_bytes(operation.sources[i].dtype);
      done += count;
    }
    --resident.pieces_left;
  }

  /// Applies a piece under a guess; with the last one the guess is settled and the result handed on.
  void speculate(Resident& resident, std::size_t index) {
    const Piece& piece = resident.unit.pieces[index];
    const plan::Operation& operation = plan_.operations[piece.operation];
    const merge::MethodRow& method = pipeline_.method_of(operation);
    if (piece.first_element == 0 && !begin_guess(resident.unit, piece.operation)) {
      pipeline_.speculative.erase(piece.operation);
      pipeline_.decided[piece.operation] = measure_alone(piece.operation, {}, pipeline_);
      return arrive(resident, index);
    }
    fill(resident, index, [&](const merge::Elements& elements, std::byte* target) {
      merge::apply_guess(method, operation.task, guess_, elements, target, doubts_);
    });
    if (!piece.is_last) return;
    if (settle(operation)) {
      mend(operation);
    } else {
      apply_again(piece.operation, measure_alone(piece.operation, guess_, pipeline_));
    }
    writer_.release();
  }

  bool begin_guess(const LoadedUnit& unit, std::uint32_t index) {
    const trace::Span span(trace::Kind::kCombine, "guess");
    const plan::Operation& operation = plan_.operations[index];
    std::vector<std::vector<const std::byte*>> pointers;
    std::vector<merge::Elements> chunks;
    const std::size_t num_sources = operation.sources.size();
    for (std::size_t c = 0; c < unit.sample_chunks.size(); ++c) {
      if (unit.sample_chunks[c].operation != index) continue;
      std::vector<const std::byte*>& inputs = pointers.emplace_back();
      for (std::size_t i = 0; i < num_sources; ++i) inputs.push_back(unit.sample_at(c, i));
      chunks.push_back(
          {.first_element = unit.sample_chunks[c].first_element, .num_elements = unit.sample_chunks[c].num_elements, .inputs = {}});
    }
    for (std::size_t c = 0; c < chunks.size(); ++c) chunks[c].inputs = pointers[c];
    guess_ = {};
    if (!pipeline_.method_of(operation).speculation->guess(operation.task, chunks, guess_)) return false;
    doubts_.resize(static_cast<std::size_t>(std::max(1, pipeline_.options.threads)));
    for (merge::Doubts& part : doubts_) part.clear();
    writer_.hold();
    return true;
  }

  bool settle(const plan::Operation& operation) {
    const trace::Span span(trace::Kind::kCombine, "settle");
    return pipeline_.method_of(operation).speculation->settle(operation.task, doubts_, guess_);
  }

  void mend(const plan::Operation& operation) {
    const trace::Span span(trace::Kind::kCombine, "mend");
    const std::size_t element_size = size_bytes(operation.task.output_dtype);
    const plan::Destination place = plan::destination(plan_, operation);
    // All windows but the first hold as many bytes.
    std::vector<std::byte*> windows;
    std::uint64_t first_bytes = 0;
    for (std::uint64_t done = 0; done < place.size_bytes;) {
      const std::span<std::byte> part = writer_.held(place.file, place.begin + done, place.size_bytes - done);
      if (done == 0) first_bytes = part.size();
      windows.push_back(part.data());
      done += part.size();
    }
    const std::uint64_t window_bytes = pipeline_.sizes.window_bytes;
    merge::mend_doubts(pipeline_.method_of(operation), operation.task, guess_, doubts_,
                       [&](std::span<const std::uint64_t> elements, const std::byte* results) {
                         // Neighbours in the list mostly lie in one window: a division each would cost more than the rest.
                         std::uint64_t begin = 0;
                         std::uint64_t end = 0;
                         std::byte* window = nullptr;
                         for (std::size_t i = 0; i < elements.size(); ++i) {
                           const std::uint64_t offset = elements[i] * element_size;
                           if (offset < begin || offset >= end) {
                             const std::uint64_t index = offset < first_bytes ? 0 : 1 + (offset - first_bytes) / window_bytes;
                             begin = index == 0 ? 0 : first_bytes + (index - 1) * window_bytes;
                             end = index == 0 ? first_bytes : begin + window_bytes;
                             window = windows[index];
                           }
                           if (element_size == sizeof(std::uint16_t)) {  // nor a call of memcpy
                             std::memcpy(window + (offset - begin), results + i * sizeof(std::uint16_t), sizeof(std::uint16_t));
                           } else {
                             std::memcpy(window + (offset - begin), results + i * element_size, element_size);
                           }
                         }
                       });
  }

  /// The guess was wrong: reads the operation once more.
  void apply_again(std::uint32_t index, const merge::Decisions& decisions) {
    const plan::Operation& operation = plan_.operations[index];
    const std::size_t element_size = size_bytes(operation.task.output_dtype);
    const plan::Destination place = plan::destination(plan_, operation);
    UnitReader reader(plan_, pipeline_.files, pipeline_.slots, pipeline_.options.in_one_thread);
    reader.add(cut_blocks(plan_, index, 0, merge::num_blocks(operation.task.elements()), pipeline_.sizes.slot_bytes));
    while (reader.num_left() != 0) {
      LoadedUnit loaded = reader.take();
      pipeline_.report.read_bytes += loaded.read_bytes;
      const Piece& piece = loaded.pieces.front();
      std::vector<const std::byte*> inputs(loaded.sources(0).begin(), loaded.sources(0).end());
      for (std::uint64_t done = 0; done < piece.num_elements;) {
        const std::uint64_t first = piece.first_element + done;
        const std::span<std::byte> target =
            writer_.held(place.file, place.begin + first * element_size, (piece.num_elements - done) * element_size);
        const std::uint64_t count = target.size() / element_size;
        merge::apply_elements(pipeline_.method_of(operation), operation.task, decisions,
                              {.first_element = first, .num_elements = count, .inputs = inputs}, target.data());
        for (std::size_t i = 0; i < inputs.size(); ++i) inputs[i] += count * size_bytes(operation.sources[i].dtype);
        done += count;
      }
      pipeline_.slots.release(std::move(loaded.slot));
    }
  }

  void compute(const plan::Operation& operation, const merge::Decisions& decisions, const merge::Elements& elements, std::byte* target) {
    switch (operation.kind) {
      case plan::Operation::Kind::kMerge:
        merge::apply_elements(pipeline_.method_of(operation), operation.task, decisions, elements, target);
        return;
      case plan::Operation::Kind::kCopy:
        copy(operation, elements, target);
        return;
      case plan::Operation::Kind::kRandomFill:
      case plan::Operation::Kind::kConstant:
      case plan::Operation::Kind::kSlot:
        generate_rows(plan_, operation, pipeline_.slot_rows, elements, target);
        return;
      case plan::Operation::Kind::kBlockScales:
        throw Error(ErrorCode::kInternal, "block scales are written band by band", {}, operation.name);
    }
  }

  void copy(const plan::Operation& operation, const merge::Elements& elements, std::byte* target) {
    const std::size_t num_bytes = elements.num_elements * size_bytes(operation.task.output_dtype);
    for (std::size_t i = 1; i < elements.inputs.size(); ++i) {
      if (std::memcmp(elements.inputs[0], elements.inputs[i], num_bytes) == 0) continue;
      const auto& files = plan_.input_files;
      throw Error(ErrorCode::kInvalidInput,
                  "has type " + std::string(name(operation.task.output_dtype)) + ", which cannot be merged, and is not the same in " +
                      files[operation.sources[0].file].path + " and " + files[operation.sources[i].file].path +
                      ". Tensors of such types must be identical in all models.",
                  files[operation.sources[i].file].path, operation.name);
    }
    std::memcpy(target, elements.inputs[0], num_bytes);
  }

  /// Writes what of the files' headers lies in the runs up to the one that holds (file, offset).
  void write_headers_up_to(std::uint32_t file, std::uint64_t offset) {
    const auto holds = [&](const plan::FileRun& run) { return run.file == file && run.begin <= offset && offset < run.end; };
    while (num_headers_ < runs_.size() && (num_headers_ == 0 || !holds(runs_[num_headers_ - 1]))) write_header(runs_[num_headers_++]);
  }

  void write_header(const plan::FileRun& run) {
    const std::string& header = plan_.output_files[run.file].header;
    const std::uint64_t own_bytes = plan_.output_files[run.file].own_metadata_bytes;
    const std::uint64_t end = std::min(run.end, std::max<std::uint64_t>(header.size(), own_bytes));
    for (std::uint64_t done = run.begin; done < end;) {
      const std::span<std::byte> target = writer_.reserve(run.file, done, end - done);
      if (own_bytes != 0) {
        std::memset(target.data(), 0, target.size());  // the writer has its own
      } else {
        std::memcpy(target.data(), header.data() + done, target.size());
      }
      writer_.commit(target.size());
      done += target.size();
    }
  }

  void release_finished() {
    while (!residents_.empty() && residents_.front().pieces_left == 0) {
      pipeline_.slots.release(std::move(residents_.front().unit.slot));
      residents_.pop_front();
    }
  }

  void report_progress() {
    pipeline_.written_bytes = writer_.written_bytes();
    pipeline_.report_progress();
  }

  WorkSource& work_;
  RankPipeline& pipeline_;
  const plan::MergePlan& plan_;
  UnitStream stream_;
  WindowWriter writer_;
  std::deque<Resident> residents_;      // a deque: references stay valid at both ends
  std::vector<HeldPiece> held_;         // pieces of the one operation that is being held
  merge::PhasePartial partial_;         // of its current phase
  merge::PhasePartial measured_alone_;  // of the one operation that is measured and not held
  merge::Decisions guess_;              // of the one operation that is applied under a guess
  std::vector<merge::Doubts> doubts_;
  BlockScaledBands bands_;
  std::vector<float> band_values_;
  StatisticsGatherer statistics_;
  std::map<std::pair<std::uint32_t, std::uint64_t>, std::vector<float>> scales_;  // by operation and band, until they are written
  std::optional<UnitStream::Batch> batch_;                                        // of the stream, not read yet
  bool has_all_ = false;
  std::vector<plan::FileRun> runs_;  // that were taken, in the order of the work
  std::size_t num_headers_ = 0;      // of them whose part of the header has been written
};

}  // namespace

void RankPipeline::remember(std::span<const std::uint32_t> operations) {
  if (journal == nullptr || operations.empty()) return;
  DecidedOperations record;
  for (const std::uint32_t index : operations) record.operations.push_back({index, decided.at(index)});
  journal->append(record);
}

Keeping RankPipeline::keeping() const {
  Keeping keep;
  keep.interval = std::chrono::duration_cast<std::chrono::steady_clock::duration>(options.journal_interval);
  keep.in_one_thread = options.in_one_thread;
  if (journal != nullptr)
    keep.finished = [target = journal](std::vector<RunDigests> runs) { target->append(FinishedRuns{std::move(runs)}); };
  return keep;
}

void RankPipeline::look_at_values(const LoadedUnit& unit) {
  if (!options.check_finite) return;
  for (std::size_t index = 0; index < unit.pieces.size(); ++index) {
    const Piece& piece = unit.pieces[index];
    const plan::Operation& operation = plan.operations[piece.operation];
    for (std::size_t i = 0; i < unit.sources(index).size() && i < operation.sources.size(); ++i) {
      if (!is_arithmetic(operation.sources[i].dtype)) continue;
      const std::uint64_t count = merge::count_non_finite(operation.sources[i].dtype, unit.sources(index)[i], piece.num_elements);
      if (count == 0) continue;
      throw Error(ErrorCode::kInvalidInput,
                  "holds " + std::to_string(count) + " values that are NaN or infinite (in elements " +
                      std::to_string(piece.first_element) + " to " + std::to_string(piece.first_element + piece.num_elements - 1) +
                      "), and --check-finite refuses them",
                  plan.input_files[plan::first_leaf(operation.sources[i]).file].path, operation.name);
    }
  }
}

std::vector<RunDigests> run_main_pass(WorkSource& work, const std::string& directory, RankPipeline& pipeline) {
  MainPass pass(work, directory, pipeline);
  return pass.run();
}

}  // namespace moeweld::exec
