#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <random>

#include "moeweld/exec/alignment.h"
#include "moeweld/exec/execute.h"
#include "moeweld/plan/similarity_plan.h"
#include "support/synthetic_plan.h"
#include "unit/expect_error.h"
#include "unit/plan/tiny_models.h"

namespace moeweld::exec {
namespace {

using testing_support::read_file;

using Tensors = std::map<std::string, std::vector<float>>;
using Order = std::vector<std::uint32_t>;

constexpr std::size_t kHidden = 16;
constexpr std::size_t kNeurons = 24;
constexpr std::uint32_t kExperts = 4;

/// Mixtrals of two layers in F32, of which the second is the first one's fine-tune, and the third that fine-tune with experts and neurons
/// in another order.
class RunWithExpertOrders : public ::testing::Test {
 protected:
  RunWithExpertOrders() {
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    for (const auto& tensor : plan::tensors_of(kModel)) {
      std::vector<float>& values = a_[tensor.name];
      values.resize(num_elements(tensor.shape));
      for (float& value : values) value = normal(random);
    }
    b_ = a_;
    for (auto& [name, values] : b_) {
      for (float& value : values) value += 0.1F * normal(random);
    }
    write("a", a_);
    write("b", b_);
    write("shuffled", shuffled(b_));
  }

  static std::string name(int layer, std::uint32_t expert, const char* matrix) {
    return "model.layers." + std::to_string(layer) + ".block_sparse_moe.experts." + std::to_string(expert) + "." + matrix + ".weight";
  }
  static std::string router(int layer) { return "model.layers." + std::to_string(layer) + ".block_sparse_moe.gate.weight"; }

  /// Expert e is expert order[e] of `tensors`, its neurons turned round by e + 1.
  static Tensors shuffled(const Tensors& tensors) {
    Tensors result = tensors;
    for (int layer = 0; layer < 2; ++layer) {
      const Order order = layer == 0 ? Order{2, 0, 3, 1} : Order{1, 0, 2, 3};
      for (std::uint32_t e = 0; e < kExperts; ++e) {
        for (std::size_t h = 0; h < kHidden; ++h) {
          result[router(layer)][e * kHidden + h] = tensors.at(router(layer))[order[e] * kHidden + h];
          for (std::size_t n = 0; n < kNeurons; ++n) {
            const std::size_t from = (n + e + 1) % kNeurons;
            for (const char* matrix : {"w1", "w3"}) {
              result[name(layer, e, matrix)][n * kHidden + h] = tensors.at(name(layer, order[e], matrix))[from * kHidden + h];
            }
            result[name(layer, e, "w2")][h * kNeurons + n] = tensors.at(name(layer, order[e], "w2"))[h * kNeurons + from];
          }
        }
      }
    }
    return result;
  }

  void write(const std::string& model, const Tensors& tensors) const {
    workshop_.write(model, kModel);
    std::fstream file(workshop_.path(model) + "/model.safetensors", std::ios::binary | std::ios::in | std::ios::out);
    const auto layout = plan::tensors_of(kModel);
    file.seekp(static_cast<std::streamoff>(formats::serialize_safetensors_header(layout).size()));
    for (const auto& tensor : layout) {
      const std::vector<float>& values = tensors.at(tensor.name);
      file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(float)));
    }
  }

  plan::MergePlan plan_of(const std::string& method, const std::string& other, const std::string& more) const {
    return workshop_.plan("merge_method: " + method +
                          "\nbase_model: $/a\nmodels:\n  - {model: $/a, parameters: {weight: 0.5}}\n  - {model: $/" + other +
                          ", parameters: {weight: 0.5}}\n" + more);
  }

  std::string merged(const plan::MergePlan& plan, int ranks, const ExecuteOptions& options = {}) {
    const std::string output = workshop_.path("out-" + std::to_string(++num_outputs_));
    const plan::Schedule schedule = plan::make_schedule(plan, ranks);
    run_thread_peers(ranks, [&](Peers& peers) {
      preflight(peers, *storage_, plan, output, options);
      execute(peers, *storage_, plan, schedule, output, options, {});
    });
    manifest_ = read_file(output + "/moeweld_manifest.json");
    return read_file(output + "/model.safetensors");
  }

  const plan::TinyModel kModel{.hidden = kHidden, .ffn = kNeurons, .num_experts = kExperts, .dtype = DType::kF32};
  plan::Workshop workshop_;
  std::shared_ptr<Storage> storage_ = make_posix_storage();
  Tensors a_, b_;
  std::string manifest_;
  int num_outputs_ = 0;
};

TEST_F(RunWithExpertOrders, AShuffledModelMergesAsIfItHadNotBeenOnAnyRanksThreadsAndMemory) {
  for (const char* method : {"linear", "slerp"}) {
    const std::string more = std::string(method) == "slerp" ? "parameters: {t: 0.3}\n" : "";
    const std::string expected = merged(plan_of(method, "b", more), 1);
    EXPECT_NE(merged(plan_of(method, "shuffled", more), 1), expected);
    const plan::MergePlan plan = plan_of(method, "shuffled", more + "align_experts: true\n");
    for (const int ranks : {1, 2, 5}) {
      ExecuteOptions options;
      options.threads = 1 + ranks % 2;
      if (ranks == 2) options.memory_limit_bytes = minimum_memory_bytes(plan) + (std::uint64_t{2} << 20);
      EXPECT_TRUE(merged(plan, ranks, options) == expected) << method << " on " << ranks;
    }
  }
}

TEST_F(RunWithExpertOrders, AreInTheManifestWithWhatTheyAreWorth) {
  merged(plan_of("linear", "shuffled", "align_experts: true\n"), 2);
  const formats::Json alignments = formats::Json::parse(manifest_)["alignments"];
  ASSERT_EQ(alignments.size(), 2U);
  EXPECT_EQ(alignments[0]["layer"], 0);
  EXPECT_EQ(alignments[0]["model"], workshop_.path("shuffled"));
  EXPECT_EQ(alignments[0]["experts"], formats::Json({1, 3, 0, 2}));
  EXPECT_EQ(alignments[1]["experts"], formats::Json({1, 0, 2, 3}));
  // Expert 0 is the shuffled model's expert 1, where neuron n of it stands at n - 2.
  EXPECT_EQ(alignments[0]["neurons"][0].get<std::string>().substr(0, 9), "22,23,0,1");
  EXPECT_GT(alignments[0]["weights"]["after"].get<double>(), 0.95);
  EXPECT_LT(alignments[0]["weights"]["before"].get<double>(), 0.3);
  EXPECT_GT(alignments[1]["router"]["after"].get<double>(), 0.95);
  merged(plan_of("linear", "b", "align_experts: true\n"), 1);
  EXPECT_EQ(formats::Json::parse(manifest_)["alignments"][1]["experts"], formats::Json({0, 1, 2, 3}));
  EXPECT_TRUE(formats::Json::parse(manifest_)["alignments"][1]["neurons"][3].is_null());
}

TEST_F(RunWithExpertOrders, RefuseWhatIsNotANumberByModelAndLayer) {
  b_[name(1, 2, "w3")][7] = std::numeric_limits<float>::quiet_NaN();
  write("b", b_);
  const plan::MergePlan plan = plan_of("linear", "b", "align_experts: true\n");
  expect_error([&] { run_thread_peers(3, [&](Peers& peers) { find_expert_orders(peers, *storage_, plan, {}); }); },
               ErrorCode::kInvalidInput, {workshop_.path("b"), "layer 1", "NaN"});
}

TEST_F(RunWithExpertOrders, AMemoryLimitBelowWhatMatchingTakesIsRefusedBeforeReading) {
  const plan::MergePlan plan = plan_of("linear", "b", "align_experts: true\n");
  EXPECT_GE(minimum_memory_bytes(plan), expert_order_bytes(plan, 1));
  expect_error([&] { planned_memory_bytes(plan, minimum_memory_bytes(plan) - (1 << 21), 1); }, ErrorCode::kUsage, {"--memory-limit"});
}

TEST_F(RunWithExpertOrders, SimilaritiesAreCosinesOfOneModelOrTwo) {
  plan::ModelSource models(*storage_, {});
  std::vector<config::ModelReference> references(2);
  references[0].path = workshop_.path("a");
  references[1].path = workshop_.path("shuffled");
  const plan::MergePlan plan = plan::make_similarity_plan(references, models);
  std::vector<LayerSimilarities> layers;
  run_thread_peers(2, [&](Peers& peers) {
    auto found = find_similarities(peers, *storage_, plan, {});
    if (peers.rank() == 0) layers = std::move(found);
  });
  ASSERT_EQ(layers.size(), 2U);
  EXPECT_GT(layers[0].router[1 * kExperts + 3], 0.95F);
  EXPECT_LT(layers[0].router[1 * kExperts + 1], 0.9F);
  const Tensors other = shuffled(b_);
  double ab = 0;
  double aa = 0;
  double bb = 0;
  for (const char* matrix : {"w1", "w2", "w3"}) {
    const std::vector<float>& x = a_.at(name(0, 1, matrix));
    const std::vector<float>& y = other.at(name(0, 2, matrix));
    for (std::size_t i = 0; i < x.size(); ++i) {
      ab += static_cast<double>(x[i]) * y[i];
      aa += static_cast<double>(x[i]) * x[i];
      bb += static_cast<double>(y[i]) * y[i];
    }
  }
  EXPECT_NEAR(layers[0].weights[1 * kExperts + 2], ab / std::sqrt(aa * bb), 1e-6);
  EXPECT_FALSE(layers[0].is_sketched);
  references.pop_back();
  const plan::MergePlan alone = plan::make_similarity_plan(references, models);
  run_thread_peers(1, [&](Peers& peers) { layers = find_similarities(peers, *storage_, alone, {}); });
  for (std::uint32_t e = 0; e < kExperts; ++e) EXPECT_NEAR(layers[1].weights[e * kExperts + e], 1.0, 1e-6);
  EXPECT_EQ(layers[1].weights[1], layers[1].weights[kExperts]);
}

}  // namespace
}  // namespace moeweld::exec
