#include "moeweld/verify/diff.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "moeweld/formats/checkpoint.h"
#include "moeweld/formats/safetensors.h"
#include "unit/expect_error.h"
#include "unit/temporary_directory.h"

namespace moeweld::verify {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct Tensor {
  std::string name;
  DType dtype{};
  Shape shape;
  std::string bytes;
};

template <typename T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

class DiffTest : public ::testing::Test {
 protected:
  void write(const std::string& model, const std::vector<Tensor>& tensors, const std::string& config = "{}") {
    std::vector<formats::TensorLayout> layouts;
    std::string data;
    for (const Tensor& tensor : tensors) {
      layouts.push_back({tensor.name, tensor.dtype, tensor.shape});
      data += tensor.bytes;
    }
    directory_.write(model + "/model.safetensors", formats::serialize_safetensors_header(layouts) + data);
    directory_.write(model + "/config.json", config);
  }

  DiffReport compare(int num_ranks = 1, int threads = 2) {
    DiffReport report;
    run_thread_peers(num_ranks, [&](Peers& peers) {
      DiffReport mine = diff(peers, *storage_,
                             [&] {
                               return pair_tensors(formats::read_checkpoint(*storage_, directory_ / "a"),
                                                   formats::read_checkpoint(*storage_, directory_ / "b"));
                             },
                             threads, {});
      if (peers.rank() == num_ranks - 1) report = std::move(mine);
    });
    return report;
  }

  TemporaryDirectory directory_;
  std::shared_ptr<Storage> storage_ = make_posix_storage();
};

TEST_F(DiffTest, FiguresAgreeWithTheirDefinition) {
  // More than one segment of 2^22 elements, and a tail.
  const std::size_t count = (std::size_t{1} << 22) + (1 << 18) + 77;
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> a(count);
  std::vector<float> b(count);
  for (std::size_t i = 0; i < count; ++i) {
    a[i] = normal(random);
    b[i] = i % 10 == 0 ? a[i] + 0.01F * normal(random) : a[i];
  }
  b[count - 3] = a[count - 3] + 7;
  write("a", {{"x", DType::kF32, {count}, bytes_of(a)}});
  write("b", {{"x", DType::kF32, {count}, bytes_of(b)}});
  double dot = 0, squares_a = 0, squares_b = 0, largest = 0;
  std::uint64_t different = 0;
  for (std::size_t i = 0; i < count; ++i) {
    dot += double{a[i]} * b[i];
    squares_a += double{a[i]} * a[i];
    squares_b += double{b[i]} * b[i];
    largest = std::max(largest, std::abs(double{a[i]} - double{b[i]}));
    different += a[i] != b[i] ? 1 : 0;
  }
  const DiffReport report = compare();
  const DiffFigures& figures = *report.tensors.at(0).figures;
  EXPECT_EQ(figures.max_difference, largest);
  EXPECT_EQ(figures.max_element, count - 3);
  EXPECT_EQ(figures.different, different);
  EXPECT_NEAR(*figures.cosine(), dot / std::sqrt(squares_a * squares_b), 1e-13);
  EXPECT_FALSE(report.equal());
  EXPECT_EQ(report.read_bytes, 8 * count);
  for (const int ranks : {2, 3}) {
    const DiffFigures same = *compare(ranks, ranks).tensors.at(0).figures;
    EXPECT_EQ(same.dot, figures.dot);
    EXPECT_EQ(same.squares_b, figures.squares_b);
    EXPECT_EQ(same.max_element, figures.max_element);
  }
}

TEST_F(DiffTest, EqualIsSameTypeShapeAndBytes) {
  const std::vector<float> values = {1, -2, 0, 4};
  const std::vector<float> minus_zero = {1, -2, -0.0F, 4};
  const std::vector<double> wide = {1, -2, 0, 4};
  write("a", {{"same", DType::kF32, {4}, bytes_of(values)},
              {"zero", DType::kF32, {4}, bytes_of(values)},
              {"shape", DType::kF32, {4}, bytes_of(values)},
              {"none", DType::kF32, {0, 3}, ""},
              {"type", DType::kF64, {4}, bytes_of(wide)}});
  write("b", {{"same", DType::kF32, {4}, bytes_of(values)},
              {"zero", DType::kF32, {4}, bytes_of(minus_zero)},
              {"shape", DType::kF32, {2, 2}, bytes_of(values)},
              {"none", DType::kF32, {0, 3}, ""},
              {"type", DType::kF32, {4}, bytes_of(values)}});
  std::map<std::string, TensorDiff> found;
  for (const TensorDiff& tensor : compare().tensors) found[tensor.name] = tensor;
  EXPECT_TRUE(found.at("same").equal);
  EXPECT_TRUE(found.at("none").equal);
  EXPECT_FALSE(found.at("zero").equal);
  EXPECT_EQ(found.at("zero").figures->different, 1U);
  EXPECT_EQ(found.at("zero").figures->max_difference, 0);
  EXPECT_FALSE(found.at("shape").equal);
  EXPECT_FALSE(found.at("shape").figures);
  EXPECT_FALSE(found.at("type").equal);
  EXPECT_EQ(found.at("type").figures->different, 0U) << "the values are the same";
}

TEST_F(DiffTest, DoublesAreReadExactly) {
  write("a", {{"x", DType::kF64, {1}, bytes_of(std::vector<double>{1.0})}});
  write("b", {{"x", DType::kF64, {1}, bytes_of(std::vector<double>{1.0 + 1e-15})}});
  EXPECT_EQ(compare().tensors.at(0).figures->max_difference, (1.0 + 1e-15) - 1.0);
}

TEST_F(DiffTest, NonFiniteElementsAreCountedAndLeftOut) {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  write("a", {{"x", DType::kF32, {5}, bytes_of(std::vector<float>{3, nan, inf, 4, nan})}});
  write("b", {{"x", DType::kF32, {5}, bytes_of(std::vector<float>{3, 1, inf, 4, nan})}});
  const DiffFigures figures = *compare().tensors.at(0).figures;
  EXPECT_EQ(figures.non_finite, 3U);
  EXPECT_EQ(figures.different, 1U);
  EXPECT_EQ(figures.max_difference, 0);
  EXPECT_EQ(figures.squares_a, 25);
  EXPECT_EQ(*figures.cosine(), 1);
}

TEST_F(DiffTest, TypesWithoutValuesAreCounted) {
  write("a", {{"x", DType::kI64, {3}, bytes_of(std::vector<std::int64_t>{1, 2, 3})}});
  write("b", {{"x", DType::kI64, {3}, bytes_of(std::vector<std::int64_t>{1, 5, 6})}});
  const TensorDiff tensor = compare().tensors.at(0);
  EXPECT_FALSE(tensor.has_values);
  EXPECT_EQ(tensor.figures->different, 2U);
  EXPECT_FALSE(tensor.figures->cosine());
}

TEST_F(DiffTest, TensorsOfOneModelOnlyAreNamed) {
  const std::string bytes = bytes_of(std::vector<float>{1});
  write("a", {{"x", DType::kF32, {1}, bytes}, {"y", DType::kF32, {1}, bytes}});
  write("b", {{"x", DType::kF32, {1}, bytes}, {"z", DType::kF32, {1}, bytes}});
  const DiffReport report = compare(2);
  EXPECT_THAT(report.only_in_a, ElementsAre("y"));
  EXPECT_THAT(report.only_in_b, ElementsAre("z"));
  EXPECT_FALSE(report.equal());
}

TEST_F(DiffTest, AFileThatIsTooShortFailsOnAllRanks) {
  const std::string bytes = bytes_of(std::vector<float>(1000, 1));
  write("a", {{"x", DType::kF32, {1000}, bytes}});
  write("b", {{"x", DType::kF32, {1000}, bytes}});
  const DiffReport pairs =
      pair_tensors(formats::read_checkpoint(*storage_, directory_ / "a"), formats::read_checkpoint(*storage_, directory_ / "b"));
  std::filesystem::resize_file(directory_ / "b/model.safetensors", 5000);
  int failures = 0;
  run_thread_peers(3, [&](Peers& peers) {
    expect_error([&] { diff(peers, *storage_, [&] { return pairs; }, 1, {}); }, ErrorCode::kInvalidInput, {"b/model.safetensors", "5000"});
    if (peers.rank() == 2) ++failures;
  });
  EXPECT_EQ(failures, 1);
}

/// The experts of a one-layer Mixtral of hidden size 2 and width 1: [gate, up] one below the other when fused, and down.
TEST_F(DiffTest, ExpertsOfUnlikeLayoutsAreComparedOneByOne) {
  const std::string config =
      R"({"architectures":["MixtralForCausalLM"],"model_type":"mixtral","num_hidden_layers":1,"num_local_experts":2,"vocab_size":3,"hidden_size":2})";
  std::vector<Tensor> common;
  const auto add = [](std::vector<Tensor>& tensors, const std::string& name, Shape shape, std::vector<float> values) {
    tensors.push_back({name, DType::kF32, std::move(shape), bytes_of(values)});
  };
  const std::string layer = "model.layers.0.";
  add(common, "model.embed_tokens.weight", {3, 2}, {1, 2, 3, 4, 5, 6});
  add(common, "lm_head.weight", {3, 2}, {1, 2, 3, 4, 5, 6});
  add(common, "model.norm.weight", {2}, {1, 1});
  add(common, layer + "input_layernorm.weight", {2}, {1, 1});
  add(common, layer + "post_attention_layernorm.weight", {2}, {1, 1});
  for (const char* matrix : {"q_proj", "k_proj", "v_proj", "o_proj"})
    add(common, layer + "self_attn." + matrix + ".weight", {2, 2}, {1, 2, 3, 4});
  std::vector<Tensor> fused = common;
  std::vector<Tensor> single = common;
  add(single, layer + "block_sparse_moe.gate.weight", {2, 2}, {1, 0, 0, 1});
  add(fused, layer + "mlp.gate.weight", {2, 2}, {1, 0, 0, 1});
  add(fused, layer + "mlp.experts.gate_up_proj", {2, 2, 2}, {1, 2, 3, 4, 5, 6, 7, 8});
  add(fused, layer + "mlp.experts.down_proj", {2, 2, 1}, {9, 10, 11, 12});
  add(single, layer + "block_sparse_moe.experts.0.w1.weight", {1, 2}, {1, 2});
  add(single, layer + "block_sparse_moe.experts.0.w3.weight", {1, 2}, {3, 4});
  add(single, layer + "block_sparse_moe.experts.0.w2.weight", {2, 1}, {9, 10});
  add(single, layer + "block_sparse_moe.experts.1.w1.weight", {1, 2}, {5, 6});
  add(single, layer + "block_sparse_moe.experts.1.w3.weight", {1, 2}, {7, 8.5});
  add(single, layer + "block_sparse_moe.experts.1.w2.weight", {2, 1}, {11, 12});
  write("a", single, config);
  write("b", fused, config);
  const DiffReport report = compare(2);
  EXPECT_THAT(report.only_in_a, IsEmpty());
  EXPECT_THAT(report.only_in_b, IsEmpty());
  std::vector<std::string> differ;
  for (const TensorDiff& tensor : report.tensors) {
    if (!tensor.equal) differ.push_back(tensor.name);
  }
  EXPECT_EQ(report.tensors.size(), common.size() + 7);
  EXPECT_THAT(differ, ElementsAre(layer + "block_sparse_moe.experts.1.w3.weight"));
}

}  // namespace
}  // namespace moeweld::verify
