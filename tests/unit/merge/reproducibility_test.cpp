/// The same bytes on every SIMD target, for any number of threads, and for any cut of the work.

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <memory>

#include "moeweld/base/error.h"
#include "moeweld/merge/simd_target.h"
#include "unit/merge/arrays.h"

namespace moeweld::merge {
namespace {

constexpr std::uint64_t kSeed = 20260103;
constexpr std::size_t kBlock = kBlockElements;

/// Chooses targets, and gives the processor its own again.
class TargetGuard {
 public:
  TargetGuard() : active_(active_simd_target()) {}
  ~TargetGuard() { choose_simd_target(active_); }
  TargetGuard(const TargetGuard&) = delete;

 private:
  std::string active_;
};

class ThreadsGuard {
 public:
  ThreadsGuard() : threads_(omp_get_max_threads()) {}
  ~ThreadsGuard() { omp_set_num_threads(threads_); }
  ThreadsGuard(const ThreadsGuard&) = delete;

 private:
  int threads_;
};

struct Named {
  std::string label;
  std::unique_ptr<Case> merge_case;
};

/// Every method over inputs of one dtype and of all, with infinities, NaN, zeros and subnormals among them.
std::vector<Named> all_cases(std::size_t size) {
  std::mt19937_64 engine(kSeed);
  std::vector<Named> result;
  const std::vector<std::pair<std::vector<DType>, DType>> mixes = {{{DType::kBF16}, DType::kBF16},
                                                                   {{DType::kF16}, DType::kF16},
                                                                   {{DType::kF32}, DType::kF32},
                                                                   {{DType::kF64, DType::kBF16, DType::kF16, DType::kF32}, DType::kBF16},
                                                                   {{DType::kBF16, DType::kF64, DType::kF32, DType::kF16}, DType::kF64}};
  for (const auto& [dtypes, output] : mixes) {
    const std::vector<double> first = normals(engine, size);
    const auto arrays = [&, &types = dtypes](std::size_t count, bool special) {
      std::vector<Array> inputs;
      for (std::size_t k = 0; k < count; ++k) {
        std::vector<double> values = k == 0 ? first : near(engine, first, 0.02);
        // A quarter of the task vector has one magnitude.
        for (std::size_t i = 0; k != 0 && i < size; i += 4) values[i] = first[i] + (i % 8 == 0 ? 0.015625 : -0.015625);
        for (std::size_t i = 7 + k; special && i < size; i += 1001) {
          values[i] = i % 3 == 0 ? std::numeric_limits<double>::infinity() : i % 3 == 1 ? 1e-40 : 3e-8;
        }
        inputs.emplace_back(types[k % types.size()], std::move(values));
      }
      return inputs;
    };
    const auto add = [&, out = output](std::string_view method, std::vector<Array> inputs, int base, const Parameters& shared,
                                       const std::vector<Parameters>& models) {
      result.push_back({std::string(method) + " to " + std::string(name(out)) + ", " + std::to_string(size) + " elements",
                        std::make_unique<Case>(method, out, std::move(inputs), base, shared, models)});
    };
    add("passthrough", arrays(1, true), -1, {}, {});
    add("passthrough", arrays(1, true), -1, {}, {{{"scale", 0.3}}});
    add("linear", arrays(2, true), -1, {}, {{{"weight", 0.7}}, {{"weight", 0.4}}});
    add("linear", arrays(5, true), -1, {{"normalize", 0}},
        {{{"weight", 0.7}}, {{"weight", 0.4}}, {{"weight", -0.1}}, {{"weight", 0.1}}, {{"weight", 1}}});
    add("slerp", arrays(2, false), 1, {{"t", 0.3}}, {});
    add("task_arithmetic", arrays(3, true), 0, {{"lambda", 0.7}}, {{}, {{"weight", 0.7}}, {{"weight", 0.4}}});
    add("ties", arrays(3, true), 0, {}, {{}, {{"weight", 0.7}, {"density", 0.3}}, {{"weight", 0.4}, {"density", 0.6}}});
    add("ties", arrays(5, false), 0, {{"rescale", 1}},
        {{},
         {{"weight", 0.7}, {"density", 0.3}},
         {{"weight", 0.4}, {"density", 1}},
         {{"weight", 0.3}, {"density", 0.6}},
         {{"weight", 1}, {"density", 0}}});
  }
  return result;
}

TEST(SimdTargets, GiveTheSameBytes) {
  const TargetGuard guard;
  for (const std::size_t size : {std::size_t{17}, std::size_t{1000}, kBlock + 65}) {
    for (const Named& named : all_cases(size)) {
      choose_simd_target(available_simd_targets().back());  // the baseline
      const std::vector<std::byte> expected = named.merge_case->run_bytes();
      for (const std::string& target : available_simd_targets()) {
        choose_simd_target(target);
        ASSERT_EQ(active_simd_target(), target);
        EXPECT_TRUE(named.merge_case->run_bytes() == expected) << named.label << " differs on " << target;
      }
    }
  }
}

TEST(SimdTargets, UnknownOnesAreRefused) {
  const TargetGuard guard;
  EXPECT_THROW(choose_simd_target("MMX"), Error);
  EXPECT_NO_THROW(choose_simd_target(available_simd_targets().front()));
}

TEST(Threads, AnyNumberGivesTheSameBytes) {
  const ThreadsGuard guard;
  for (const Named& named : all_cases(3 * kBlock + 7)) {
    omp_set_num_threads(1);
    const std::vector<std::byte> expected = named.merge_case->run_bytes();
    for (const int threads : {2, 3}) {
      omp_set_num_threads(threads);
      EXPECT_TRUE(named.merge_case->run_bytes() == expected) << named.label << " differs with " << threads << " threads";
    }
  }
}

std::vector<const std::byte*> pointers_at(const Case& merge_case, std::size_t first) {
  std::vector<const std::byte*> result = merge_case.pointers;
  for (std::size_t k = 0; k < result.size(); ++k) result[k] += first * size_bytes(merge_case.arrays[k].dtype);
  return result;
}

/// Measures in pieces that start at the given blocks, each into a partial of its own, folded in reverse.
Decisions measure_in_pieces(const Case& merge_case, const std::vector<std::size_t>& first_blocks) {
  Decisions decisions;
  if (merge_case.method->next_phase == nullptr) return decisions;
  while (const auto phase = merge_case.method->next_phase(merge_case.task, decisions)) {
    std::vector<PhasePartial> partials;
    for (std::size_t piece = 0; piece < first_blocks.size(); ++piece) {
      const std::size_t first = first_blocks[piece] * kBlock;
      const std::size_t end = piece + 1 < first_blocks.size() ? first_blocks[piece + 1] * kBlock : merge_case.size();
      const auto pointers = pointers_at(merge_case, first);
      partials.emplace_back();
      measure_blocks(*merge_case.method, merge_case.task, decisions, *phase,
                     {.first_element = first, .num_elements = end - first, .inputs = pointers}, partials.back());
    }
    std::reverse(partials.begin(), partials.end());
    decide_phase(*merge_case.method, merge_case.task, *phase, std::move(partials), decisions);
  }
  return decisions;
}

TEST(Cuts, OfMeasuringDecideTheSame) {
  for (const Named& named : all_cases(3 * kBlock + 7)) {
    const Decisions expected = measure_all(*named.merge_case->method, named.merge_case->task, named.merge_case->whole());
    for (const std::vector<std::size_t>& cut : {std::vector<std::size_t>{0, 1, 2, 3}, {0, 2}, {0, 3}}) {
      EXPECT_TRUE(measure_in_pieces(*named.merge_case, cut) == expected) << named.label << ", cut in " << cut.size();
    }
  }
}

TEST(Cuts, OfApplyingGiveTheSameBytes) {
  std::mt19937_64 engine(kSeed);
  for (const Named& named : all_cases(kBlock + 65)) {
    const Case& merge_case = *named.merge_case;
    const std::size_t element_size = size_bytes(merge_case.task.output_dtype);
    const Decisions decisions = measure_all(*merge_case.method, merge_case.task, merge_case.whole());
    const std::vector<std::byte> expected = merge_case.run_bytes();
    for (const std::size_t longest : {std::size_t{100}, std::size_t{5000}, kBlock}) {
      std::vector<std::byte> output(expected.size());
      for (std::size_t first = 0; first < merge_case.size();) {
        const std::size_t count = std::min<std::size_t>(1 + engine() % longest, merge_case.size() - first);
        const auto pointers = pointers_at(merge_case, first);
        apply_elements(*merge_case.method, merge_case.task, decisions, {.first_element = first, .num_elements = count, .inputs = pointers},
                       output.data() + first * element_size);
        first += count;
      }
      EXPECT_TRUE(output == expected) << named.label << ", runs of at most " << longest << ", seed " << kSeed;
    }
  }
}

TEST(Cuts, ABlockThatIsMissingOrThereTwiceIsAnError) {
  const std::vector<Named> cases = all_cases(kBlock + 65);
  const auto slerp = std::find_if(cases.begin(), cases.end(), [](const Named& named) { return named.label.starts_with("slerp"); });
  const Case& merge_case = *slerp->merge_case;
  Decisions decisions;
  const auto phase = merge_case.method->next_phase(merge_case.task, decisions);
  PhasePartial first;
  measure_blocks(*merge_case.method, merge_case.task, decisions, *phase,
                 {.first_element = 0, .num_elements = kBlock, .inputs = merge_case.pointers}, first);
  EXPECT_THROW(decide_phase(*merge_case.method, merge_case.task, *phase, {first}, decisions), Error);
  PhasePartial all;
  measure_blocks(*merge_case.method, merge_case.task, decisions, *phase, merge_case.whole(), all);
  EXPECT_THROW(decide_phase(*merge_case.method, merge_case.task, *phase, {first, all}, decisions), Error);
  EXPECT_NO_THROW(decide_phase(*merge_case.method, merge_case.task, *phase, {all}, decisions));
}

TEST(NonFinite, ComputedNanIsThePositiveQuietOne) {
  const double infinity = std::numeric_limits<double>::infinity();
  const auto bytes_of = [](const auto& value) {
    std::vector<std::byte> bytes(sizeof value);
    std::memcpy(bytes.data(), &value, sizeof value);
    return bytes;
  };
  const TargetGuard guard;
  for (const std::string& target : available_simd_targets()) {
    choose_simd_target(target);
    const auto difference = [&](DType dtype) {  // infinity minus infinity
      return Case("linear", dtype, {Array(dtype, {infinity}), Array(dtype, {-infinity})}, -1, {}, {{{"weight", 1}}, {{"weight", 1}}})
          .run_bytes();
    };
    EXPECT_EQ(difference(DType::kBF16), bytes_of(std::uint16_t{0x7FC0})) << target;
    EXPECT_EQ(difference(DType::kF16), bytes_of(std::uint16_t{0x7E00})) << target;
    EXPECT_EQ(difference(DType::kF32), bytes_of(std::uint32_t{0x7FC00000})) << target;
    EXPECT_EQ(difference(DType::kF64), bytes_of(std::uint64_t{0x7FF8000000000000})) << target;
  }
}

}  // namespace
}  // namespace moeweld::merge
