#include "moeweld/exec/expert_measures.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <mutex>

#include "unit/expect_error.h"
#include "unit/temporary_directory.h"

namespace moeweld::exec {
namespace {

/// A file of float32 numbers, seen as the routers [rows, 3] of consecutive layers.
class RouterFile {
 public:
  RouterFile(std::vector<float> values, std::uint32_t num_experts) {
    std::string bytes(values.size() * sizeof(float), '\0');
    std::memcpy(bytes.data(), values.data(), bytes.size());
    const std::string path = directory_.write("routers", bytes);
    survey.num_experts = num_experts;
    survey.input_files.push_back({.path = path, .identity = storage->open_input(path, IoMode::kBuffered)->identity(), .model = 0});
    const std::uint64_t router_elements = std::uint64_t{num_experts} * 3;
    for (std::uint64_t first = 0; first < values.size(); first += router_elements) {
      plan::SourceView router;
      router.dtype = DType::kF32;
      router.begin = first * sizeof(float);
      router.num_elements = router_elements;
      router.columns = 3;
      survey.layers.push_back(
          {.layer = static_cast<int>(2 * survey.layers.size()), .router_name = "router", .router = router, .experts = {}});
    }
  }

  std::shared_ptr<Storage> storage = make_posix_storage();
  plan::MixtureSurvey survey;

 private:
  TemporaryDirectory directory_;
};

TEST(RouterRowNorms, AreTheSameOnEveryRankOfAnyWorld) {
  const RouterFile file({3, 4, 0, 0, 0, 2, /**/ 1, 2, 2, -6, 0, 8, /**/ 0, 0, 0, 0, 0, 1}, 2);
  const plan::ExpertScores expected = {{0, {5, 2}}, {2, {3, 10}}, {4, {0, 1}}};
  for (const int ranks : {1, 2, 5}) {
    run_thread_peers(ranks, [&](Peers& peers) {
      EXPECT_EQ(router_row_norms(peers, *file.storage, file.survey, IoMode::kBuffered), expected) << ranks << " ranks";
    });
  }
}

TEST(RouterRowNorms, ARowThatIsNotFiniteIsNamed) {
  const RouterFile file({1, 0, 0, 0, NAN, 0}, 2);
  expect_error([&] { router_row_norms(*make_single_peer(), *file.storage, file.survey, IoMode::kBuffered); }, ErrorCode::kInvalidInput,
               {"router", "expert 1"});
}

/// One layer of experts, each of three matrices, from a file of float32 numbers.
struct ExpertFile {
  ExpertFile(const std::vector<float>& values, std::uint32_t num_experts) : routers(values, 1) {
    plan::MixtureSurvey& survey = routers.survey;
    survey.num_experts = num_experts;
    survey.layers.resize(1);
    const std::uint64_t size = values.size() / num_experts / 3;
    for (std::uint64_t i = 0; i < std::uint64_t{num_experts} * 3; ++i) {
      plan::SourceView view;
      view.dtype = DType::kF32;
      view.begin = i * size * sizeof(float);
      view.num_elements = size;
      survey.layers[0].experts.push_back(view);
    }
  }
  RouterFile routers;
};

TEST(ExpertSimilarities, AreCosinesOfAllWeightsTogether) {
  constexpr std::size_t kExperts = 3;
  // More than one part of each matrix, and a last one that is not whole.
  constexpr std::size_t kElements = std::size_t{3} * 70'001;
  std::vector<float> values(kExperts * kElements);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(static_cast<double>(i * 2654435761U % 1000) / 500.0 - 1.0 + 0.1 * static_cast<double>(i / kElements));
  const ExpertFile file(values, kExperts);
  plan::ExpertSimilarities first;
  for (const int threads : {1, 3}) {
    const auto found =
        expert_similarities(*make_single_peer(), *file.routers.storage, file.routers.survey, IoMode::kBuffered, 1 << 30, threads);
    for (std::size_t i = 0; i < kExperts; ++i) {
      for (std::size_t j = 0; j < kExperts; ++j) {
        double product = 0;
        double own = 0;
        double other = 0;
        for (std::size_t k = 0; k < kElements; ++k) {
          const double x = values[i * kElements + k];
          const double y = values[j * kElements + k];
          product += x * y;
          own += x * x;
          other += y * y;
        }
        EXPECT_NEAR(found.at(0)[i * kExperts + j], product / std::sqrt(own * other), 1e-12) << i << " and " << j;
      }
    }
    if (threads == 1) first = found;
    EXPECT_EQ(found, first) << "other bits with " << threads << " threads";
  }
}

TEST(ExpertSimilarities, AnExpertThatIsNotFiniteIsNamed) {
  const ExpertFile file({1, 2, 3, 4, INFINITY, 6}, 2);
  expect_error([&] { expert_similarities(*make_single_peer(), *file.routers.storage, file.routers.survey, IoMode::kBuffered, 1 << 30, 1); },
               ErrorCode::kInvalidInput, {"router", "expert 1"});
}

}  // namespace
}  // namespace moeweld::exec
