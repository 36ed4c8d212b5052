#include "moeweld/infer/forward.h"

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>

#include "infer/memory.h"
#include "unit/expect_error.h"
#include "unit/infer/small_model.h"

namespace moeweld::infer {
namespace {

TokenIds some_ids(std::size_t count, unsigned seed, std::int64_t vocabulary = 300) {
  std::mt19937 random(seed);
  TokenIds ids;
  for (std::size_t i = 0; i < count; ++i) ids.push_back(static_cast<std::int64_t>(random() % static_cast<unsigned>(vocabulary)));
  return ids;
}

/// Everything that a forward pass tells, as one rank saw it.
struct Seen {
  ForwardReport report;
  std::map<std::pair<std::size_t, std::size_t>, std::vector<float>> layer_inputs;  ///< by layer, sequence
  std::map<std::pair<std::size_t, std::size_t>, std::vector<float>> router_inputs;
};

Seen run_on(Peers& peers, const SmallModel& small, const std::vector<TokenIds>& sequences, int threads = 2,
            std::uint64_t limit = std::uint64_t{1} << 30) {
  Seen seen;
  ForwardOptions options;
  options.threads = threads;
  options.memory_limit_bytes = limit;
  options.want_logits = true;
  options.want_last_logits = true;
  options.on_layer_input = [&](const SequenceView& view) {
    EXPECT_EQ(view.hidden.size(), sequences[view.sequence].size() * small.model.hidden_size);
    seen.layer_inputs[{view.layer, view.sequence}].assign(view.hidden.begin(), view.hidden.end());
  };
  options.on_router_input = [&](const SequenceView& view) {
    seen.router_inputs[{view.layer, view.sequence}].assign(view.hidden.begin(), view.hidden.end());
  };
  seen.report = forward(peers, *small.storage, small.model, sequences, options);
  return seen;
}

Seen run_alone(const SmallModel& small, const std::vector<TokenIds>& sequences) {
  const auto peers = make_single_peer();
  return run_on(*peers, small, sequences);
}

void expect_near(const std::vector<float>& actual, const Rows& expected, const char* what) {
  double largest = 0;
  double worst = 0;
  std::size_t i = 0;
  for (const Vector& row : expected) {
    for (const double value : row) {
      ASSERT_LT(i, actual.size()) << what;
      largest = std::max(largest, std::abs(value));
      worst = std::max(worst, std::abs(value - static_cast<double>(actual[i++])));
    }
  }
  EXPECT_EQ(i, actual.size()) << what;
  EXPECT_LT(worst, 2e-5 * largest) << what;
}

void expect_naive(const SmallModelOptions& options, const std::function<void(model::Transformer&)>& change = {}) {
  SmallModel small(options);
  if (change) change(small.model);
  const std::vector<TokenIds> sequences = {some_ids(9, 5), {7}, some_ids(70, 6)};
  const Seen seen = run_alone(small, sequences);
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    const NaiveResult naive = NaiveForward(small).run(sequences[s]);
    for (std::size_t layer = 0; layer < small.model.layers.size(); ++layer) {
      expect_near(seen.layer_inputs.at({layer, s}), naive.layer_inputs[layer], "layer input");
      expect_near(seen.router_inputs.at({layer, s}), naive.router_inputs[layer], "router input");
    }
    const SequenceResult& result = seen.report.sequences[s];
    expect_near(result.last_logits, {naive.logits.back()}, "logits");
    ASSERT_EQ(result.log_likelihoods.size(), sequences[s].size() - 1);
    ASSERT_EQ(result.predictions.size(), sequences[s].size());
    EXPECT_TRUE(result.is_finite);
    for (std::size_t t = 0; t < sequences[s].size(); ++t) {
      const Vector& logits = naive.logits[t];
      double sum = 0;
      for (const double logit : logits) sum += std::exp(logit);
      const auto best = static_cast<std::size_t>(result.predictions[t]);
      EXPECT_NEAR(logits[best], *std::max_element(logits.begin(), logits.end()), 1e-3);
      if (t + 1 < sequences[s].size()) {
        EXPECT_NEAR(result.log_likelihoods[t], logits[static_cast<std::size_t>(sequences[s][t + 1])] - std::log(sum), 2e-3);
      }
    }
  }
}

TEST(Forward, DenseModelIsItsFormula) { expect_naive({}); }

TEST(Forward, BiasesHeadNormsAndTiedHead) { expect_naive({.biases = true, .head_norms = true, .tied = true}); }

TEST(Forward, SlidingWindowSeesOnlyTheLastPositions) { expect_naive({.sliding_window = 5}); }

TEST(Forward, EveryStoredTypeIsRead) {
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kF16}) expect_naive({.dtype = dtype});
}

TEST(Forward, MatricesDeeperThanOneDepthTile) { expect_naive({.hidden = 96, .width = 2100, .heads = 2, .kv_heads = 1, .head_dim = 48}); }

TEST(Forward, GraniteMultipliers) {
  expect_naive({.experts = 3}, [](model::Transformer& model) {
    model.embedding_multiplier = 1.5;
    model.attention_multiplier = 0.3;
    model.residual_multiplier = 0.7;
    model.logits_divisor = 3.0;
  });
}

TEST(Forward, MixtureOfExperts) {
  expect_naive({.width = 140, .experts = 5});
  expect_naive({.width = 140, .experts = 5, .experts_per_token = 3, .normalise = false});
}

TEST(Forward, SharedExpertsWithAndWithoutAGateAndDenseLayersAmongSparseOnes) {
  expect_naive({.width = 140, .experts = 4, .normalise = false, .shared = true, .shared_gate = true});
  expect_naive({.width = 140, .layers = 3, .experts = 4, .shared = true, .dense_layers = 1});
}

void expect_same(const Seen& a, const Seen& b) {
  EXPECT_EQ(a.layer_inputs, b.layer_inputs);
  EXPECT_EQ(a.router_inputs, b.router_inputs);
  ASSERT_EQ(a.report.sequences.size(), b.report.sequences.size());
  for (std::size_t s = 0; s < a.report.sequences.size(); ++s) {
    EXPECT_EQ(a.report.sequences[s].log_likelihoods, b.report.sequences[s].log_likelihoods);
    EXPECT_EQ(a.report.sequences[s].predictions, b.report.sequences[s].predictions);
    EXPECT_EQ(a.report.sequences[s].last_logits, b.report.sequences[s].last_logits);
    EXPECT_EQ(a.report.sequences[s].prediction_probability, b.report.sequences[s].prediction_probability);
  }
}

/// Same bits on any number of ranks and threads; every rank sees all; the weights are read once in all.
void expect_same_everywhere(const SmallModelOptions& options) {
  const SmallModel small(options);
  const std::vector<TokenIds> sequences = {some_ids(20, 1), some_ids(3, 2), some_ids(66, 3)};
  const auto alone = make_single_peer();
  const Seen expected = run_on(*alone, small, sequences, 1);
  for (const auto& [ranks, threads] : {std::pair{1, 3}, {2, 1}, {3, 2}, {4, 1}, {7, 1}}) {
    std::mutex mutex;
    run_thread_peers(ranks, [&](Peers& peers) {
      const Seen seen = run_on(peers, small, sequences, threads);
      const std::lock_guard lock(mutex);
      SCOPED_TRACE(std::to_string(ranks) + " ranks, rank " + std::to_string(peers.rank()));
      expect_same(seen, expected);
      EXPECT_EQ(seen.report.read_bytes, expected.report.read_bytes);
    });
  }
}

TEST(Forward, DenseModelHasTheSameBitsOnAnyNumberOfRanksAndThreads) { expect_same_everywhere({.biases = true}); }

TEST(Forward, MixtureHasTheSameBitsOnAnyNumberOfRanksAndThreads) {
  expect_same_everywhere({.width = 140, .layers = 3, .experts = 6, .shared = true, .shared_gate = true, .dense_layers = 1});
}

TEST(Forward, ADenseModelIsReadOnceAndEmbeddingsOnlyWhereTheyOccur) {
  const SmallModel small({});
  const Seen seen = run_alone(small, {{1, 2, 1}, {2}});
  const std::uint64_t rows = 2 * small.model.token_embedding.row_bytes();
  EXPECT_EQ(seen.report.read_bytes, small.model.size_bytes() - small.model.token_embedding.size_bytes() + rows);
  EXPECT_EQ(seen.report.num_passes, 1U);
}

TEST(Forward, OnlyExpertsThatTokensGoToAreRead) {
  const SmallModel small({.width = 140, .layers = 1, .experts = 8, .experts_per_token = 1});
  const Seen seen = run_alone(small, {{1}});
  const model::GatedFfn& expert = small.model.layers[0].experts[0];
  const std::uint64_t unused = 7 * (expert.gate.size_bytes() + expert.up.size_bytes() + expert.down.size_bytes());
  EXPECT_EQ(seen.report.read_bytes,
            small.model.size_bytes() - small.model.token_embedding.size_bytes() + small.model.token_embedding.row_bytes() - unused);
}

TEST(Forward, LessMemoryMeansMorePassesAndTheSameBits) {
  for (const std::uint64_t experts : {0, 4}) {
    const SmallModel small({.width = 140, .experts = experts});
    std::vector<TokenIds> sequences;
    for (unsigned i = 0; i < 24; ++i) sequences.push_back(some_ids(50 + i, i));
    const auto peers = make_single_peer();
    const Seen expected = run_on(*peers, small, sequences, 1);
    EXPECT_EQ(expected.report.num_passes, 1U);
    ForwardOptions options;
    options.want_logits = options.want_last_logits = true;
    options.memory_limit_bytes = 64 << 20;
    const MemoryPlan memory = plan_memory(small.model, options, 1, sequences.size());
    const Seen seen = run_on(*peers, small, sequences, 1, memory.batch_bytes(600, 80));
    EXPECT_GT(seen.report.num_passes, 1U);
    expect_same(seen, expected);
    // The same sequence elsewhere in the list is in another tile, but says the same up to rounding.
    expect_error([&] { run_on(*peers, small, sequences, 1, 1 << 20); }, ErrorCode::kUsage, {"--memory-limit is too small", "tokens"});
  }
}

TEST(Forward, NonFiniteWeightsAreFoundWithTheirLayer) {
  SmallModel small({.layers = 3, .dtype = DType::kF32});
  // The last byte of a float32 of 0xff and 0x7f before it: NaN.
  const model::Weight& down = small.model.layers[1].ffn.down;
  const auto file = small.storage->open_output(small.model.files[0].path, IoMode::kBuffered);
  const std::uint32_t nan = 0x7fc00000;
  file->write(down.begin, std::as_bytes(std::span(&nan, 1)));
  small.model.files[0].identity = small.storage->identity(small.model.files[0].path).value();
  const Seen seen = run_alone(small, {some_ids(5, 1)});
  EXPECT_EQ(seen.report.first_non_finite_layer, 1);
  EXPECT_FALSE(seen.report.sequences[0].is_finite);
}

TEST(Forward, RefusesIdsOutsideTheVocabularyEmptySequencesAndChangedFiles) {
  SmallModel small({});
  expect_error(
      [&] {
        run_alone(small, {{1, 300}, {}, {-1}});
      },
      ErrorCode::kInvalidInput, {"sequence 1 has token id 300", "300 ids", "sequence 2 has no tokens", "sequence 3 has token id -1"});
  small.model.files[0].identity.modified_ns += 1;
  expect_error([&] { run_alone(small, {{1}}); }, ErrorCode::kInvalidInput, {"has changed", small.model.files[0].path});
}

TEST(Forward, AFailureOnOneRankIsEveryRanksFailure) {
  SmallModel small({});
  small.model.layers[1].ffn.down.begin = std::uint64_t{1} << 40;  // beyond the file: the rank that reads it fails
  std::atomic<int> failures = 0;
  run_thread_peers(3, [&](Peers& peers) {
    try {
      run_on(peers, small, {some_ids(5, 1)}, 1);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidInput);
      ++failures;
    }
  });
  EXPECT_EQ(failures, 3);
}

TEST(Forward, StepsAreAnnouncedAndMayEndTheRun) {
  const SmallModel small({.layers = 3});
  const auto peers = make_single_peer();
  std::vector<std::size_t> steps;
  ForwardOptions options;
  options.on_step = [&](std::size_t step, std::size_t num_steps) {
    EXPECT_EQ(num_steps, 3U);
    steps.push_back(step);
    if (step == 1) throw Error(ErrorCode::kInterrupted, "stop");
  };
  expect_error(
      [&] {
        forward(*peers, *small.storage, small.model, std::vector<TokenIds>{{1, 2}}, options);
      },
      ErrorCode::kInterrupted, {"stop"});
  EXPECT_EQ(steps, (std::vector<std::size_t>{0, 1}));
}

}  // namespace
}  // namespace moeweld::infer
