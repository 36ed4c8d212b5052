#include "moeweld/hdf5/statistics_file.h"

#include <gtest/gtest.h>
#include <hdf5.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>

#include "unit/expect_error.h"
#include "unit/temporary_directory.h"

namespace moeweld::hdf5 {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

StatisticsFile example() {
  StatisticsFile file;
  file.version = "1.2.3";
  file.title = "ties of 2 models onto größer";
  file.config = "merge_method: ties # größer\n" + std::string(40000, 'x');
  file.plan_digest = "0123abcd";
  file.seed = std::numeric_limits<std::uint64_t>::max();
  file.is_resumed = true;
  file.models = {"base", "größer", "c"};
  exec::TensorStatistics tensor;
  tensor.name = "model.layers.3.mlp.experts.7.up_proj.weight";
  tensor.pattern = "model.layers.{layer}.mlp.experts.{expert}.up_proj.weight";
  tensor.layer = 3;
  tensor.expert = 7;
  tensor.method = "ties";
  tensor.dtype = DType::kBF16;
  tensor.shape = {64, 320};
  tensor.is_measured = true;
  tensor.has_base = true;
  tensor.reference = 0;
  tensor.models = {0, 1, exec::kNoModel};
  tensor.inputs = {{1, 0.5, 1, 0, 0}, {2, 0.25, 0.125, 3, 4}, {0, 0, kNan, 1, 0}};
  tensor.result = {5, 6, -0.5, 7, 8};
  tensor.sign_conflicts = 0.25;
  tensor.density_kept = 1;
  tensor.left_out = 12;
  file.tensors.push_back(tensor);
  exec::TensorStatistics rows;
  rows.output = "expert-1";
  rows.name = "router";
  rows.pattern = "router";
  rows.method = "random";
  rows.dtype = DType::kF32;
  rows.result = {kNan, kNan, kNan, kNan, 0};
  rows.sign_conflicts = kNan;
  rows.density_kept = kNan;
  file.tensors.push_back(rows);
  return file;
}

class StatisticsFileTest : public ::testing::Test {
 protected:
  void SetUp() override { write_statistics(*storage_, path_, example()); }

  /// Changes the file through the library.
  void change(const std::function<void(hid_t)>& action) {
    const hid_t file = H5Fopen(path_.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    ASSERT_GE(file, 0);
    action(file);
    H5Fclose(file);
  }
  /// Another dataset in the place of one.
  template <typename T>
  void replace(const char* name, hid_t type, const std::vector<T>& values) {
    change([&](hid_t file) {
      H5Ldelete(file, name, H5P_DEFAULT);
      const hsize_t length = values.size();
      const hid_t space = H5Screate_simple(1, &length, nullptr);
      const hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
      ASSERT_GE(dataset, 0);
      ASSERT_GE(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
      H5Dclose(dataset);
      H5Sclose(space);
    });
  }
  void expect_refusal(std::initializer_list<std::string> parts, ErrorCode code = ErrorCode::kInvalidInput) {
    expect_error([&] { read_statistics(*storage_, path_); }, code, parts);
    write_statistics(*storage_, path_, example());
  }
  std::string bytes() {
    std::ifstream file(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

  TemporaryDirectory directory_;
  std::shared_ptr<Storage> storage_ = make_posix_storage();
  const std::string path_ = directory_ / "stats.h5";
};

TEST_F(StatisticsFileTest, ComesBackAsItWas) {
  const StatisticsFile expected = example();
  const StatisticsFile file = read_statistics(*storage_, path_);
  EXPECT_EQ(file.version, expected.version);
  EXPECT_EQ(file.title, expected.title);
  EXPECT_EQ(file.config, expected.config);
  EXPECT_EQ(file.plan_digest, expected.plan_digest);
  EXPECT_EQ(file.seed, expected.seed);
  EXPECT_TRUE(file.is_resumed);
  EXPECT_EQ(file.models, expected.models);
  ASSERT_EQ(file.tensors.size(), 2U);
  const exec::TensorStatistics& tensor = file.tensors[0];
  EXPECT_EQ(tensor.name, expected.tensors[0].name);
  EXPECT_EQ(tensor.pattern, expected.tensors[0].pattern);
  EXPECT_EQ(tensor.layer, 3);
  EXPECT_EQ(tensor.expert, 7);
  EXPECT_EQ(tensor.method, "ties");
  EXPECT_EQ(tensor.dtype, DType::kBF16);
  EXPECT_EQ(tensor.shape, (Shape{64, 320}));
  EXPECT_TRUE(tensor.is_measured && tensor.has_base);
  EXPECT_EQ(tensor.models, expected.tensors[0].models);
  EXPECT_EQ(tensor.inputs[1].cosine, 0.125);
  EXPECT_EQ(tensor.inputs[1].non_finite, 4U);
  EXPECT_TRUE(std::isnan(tensor.inputs[2].cosine));
  EXPECT_EQ(tensor.result.difference_norm, 7);
  EXPECT_EQ(tensor.sign_conflicts, 0.25);
  EXPECT_EQ(tensor.left_out, 12U);
  EXPECT_EQ(file.tensors[1].output, "expert-1");
  EXPECT_EQ(file.tensors[1].layer, -1);
  EXPECT_EQ(file.tensors[1].reference, -1);
  EXPECT_TRUE(file.tensors[1].inputs.empty() && file.tensors[1].shape.empty());
}

TEST_F(StatisticsFileTest, HasTheSameBytesAgainAndLeavesNothingBeside) {
  const std::string first = bytes();
  write_statistics(*storage_, path_, example());
  EXPECT_TRUE(bytes() == first);
  EXPECT_EQ(storage_->list(directory_.path()).size(), 1U);
}

TEST_F(StatisticsFileTest, MayHoldNothing) {
  write_statistics(*storage_, path_, {});
  EXPECT_TRUE(read_statistics(*storage_, path_).tensors.empty());
}

TEST_F(StatisticsFileTest, OtherFilesAreRefused) {
  expect_error([&] { read_statistics(*storage_, directory_ / "none.h5"); }, ErrorCode::kInvalidInput, {"none.h5", "no such file"});
  directory_.write("stats.h5", "not HDF5");
  expect_refusal({"stats.h5", "is not an HDF5 file"});
  const std::string whole = bytes();
  directory_.write("stats.h5", whole.substr(0, whole.size() / 2));
  expect_refusal({"damaged or was cut"});
  change([](hid_t file) { H5Adelete(file, "format"); });
  expect_refusal({"'format' is missing"});
}

TEST_F(StatisticsFileTest, AnotherSchemaVersionIsRefusedByName) {
  change([](hid_t file) {
    const hid_t attribute = H5Aopen(file, "format", H5P_DEFAULT);
    const hid_t type = H5Aget_type(attribute);
    H5Awrite(attribute, type, "moeweld.stats/9");
    H5Tclose(type);
    H5Aclose(attribute);
  });
  expect_refusal({"moeweld.stats/9", "moeweld.stats/1"}, ErrorCode::kUnsupported);
}

TEST_F(StatisticsFileTest, MissingPartsAreNamed) {
  change([](hid_t file) { H5Ldelete(file, "inputs", H5P_DEFAULT); });
  expect_refusal({"'inputs' is missing"});
  change([](hid_t file) { H5Ldelete(file, "tensors/norm", H5P_DEFAULT); });
  expect_refusal({"'tensors/norm' is missing"});
  change([](hid_t file) { H5Adelete(file, "resumed"); });
  expect_refusal({"'resumed' is missing"});
}

TEST_F(StatisticsFileTest, LinksAndDataElsewhereAreNotFollowed) {
  change([](hid_t file) {
    H5Ldelete(file, "tensors/norm", H5P_DEFAULT);
    H5Lcreate_external("other.h5", "/norm", file, "tensors/norm", H5P_DEFAULT, H5P_DEFAULT);
  });
  expect_refusal({"'tensors/norm'", "link"});
  change([](hid_t file) {
    H5Ldelete(file, "models", H5P_DEFAULT);
    H5Lcreate_soft("/tensors/name", file, "models", H5P_DEFAULT, H5P_DEFAULT);
  });
  expect_refusal({"'models'", "link"});
  change([](hid_t file) {
    H5Ldelete(file, "tensors/norm", H5P_DEFAULT);
    const hsize_t length = 2;
    const hid_t space = H5Screate_simple(1, &length, nullptr);
    const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(creation, "/etc/hostname", 0, 16);
    H5Dclose(H5Dcreate2(file, "tensors/norm", H5T_IEEE_F64LE, space, H5P_DEFAULT, creation, H5P_DEFAULT));
    H5Pclose(creation);
    H5Sclose(space);
  });
  expect_refusal({"'tensors/norm'", "not stored in one piece in the file"});
}

TEST_F(StatisticsFileTest, ChunkedDataIsRefusedThoughItClaimsMuch) {
  change([](hid_t file) {
    H5Ldelete(file, "tensors/name", H5P_DEFAULT);
    const hsize_t length = 1 << 25;
    const hsize_t chunk = 1024;
    const hid_t space = H5Screate_simple(1, &length, nullptr);
    const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(creation, 1, &chunk);
    H5Dclose(H5Dcreate2(file, "tensors/name", H5T_STD_U8LE, space, H5P_DEFAULT, creation, H5P_DEFAULT));
    H5Pclose(creation);
    H5Sclose(space);
  });
  expect_refusal({"'tensors/name'", "not stored in one piece in the file"});
}

TEST_F(StatisticsFileTest, TypesAndLengthsMustBeRight) {
  replace<float>("tensors/norm", H5T_IEEE_F32LE, {1, 2});
  expect_refusal({"'tensors/norm'", "float64"});
  replace<double>("tensors/norm", H5T_IEEE_F64LE, {1, 2, 3});
  expect_refusal({"'tensors/norm' has 3 rows", "2"});
  replace<double>("tensors/name", H5T_IEEE_F64LE, {1, 2});
  expect_refusal({"'tensors/name'", "texts"});
}

TEST_F(StatisticsFileTest, FiguresMustBeInTheirRange) {
  replace<double>("tensors/cosine", H5T_IEEE_F64LE, {1.5, 0});
  expect_refusal({"'tensors/cosine'", "-1 to 1", "row 0"});
  replace<double>("tensors/density_kept", H5T_IEEE_F64LE, {0, -0.5});
  expect_refusal({"'tensors/density_kept'", "0 to 1", "row 1"});
  replace<double>("inputs/norm", H5T_IEEE_F64LE, {0, 1, -1});
  expect_refusal({"'inputs/norm'", "negative", "row 2"});
}

TEST_F(StatisticsFileTest, IndicesMustNameWhatIsThere) {
  replace<std::int32_t>("inputs/model", H5T_STD_I32LE, {0, 1, 3});
  expect_refusal({"'inputs/model' has 3", "-1 to 2"});
  replace<std::uint64_t>("tensors/first_input", H5T_STD_U64LE, {0, 4});
  expect_refusal({"'tensors/first_input'", "row 0"});
  replace<std::int32_t>("tensors/reference", H5T_STD_I32LE, {3, -1});
  expect_refusal({"'tensors/reference'", "row 0"});
  replace<std::int32_t>("tensors/reference", H5T_STD_I32LE, {0, 0});
  expect_refusal({"'tensors/reference'", "row 1"});
  replace<std::int32_t>("tensors/layer", H5T_STD_I32LE, {-2, 0});
  expect_refusal({"'tensors/layer' has -2"});
}

TEST_F(StatisticsFileTest, TextsMustBeWhatTheySay) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, 4);
  replace<std::uint32_t>("tensors/dtype", type, {0x78787878U, 0x78787878U});
  expect_refusal({"'tensors/dtype' has 'xxxx'", "no type"});
  replace<std::uint32_t>("tensors/shape", type, {0x5D312D5BU, 0x5D5D5D5BU});  // "[-1]"
  expect_refusal({"'tensors/shape' has '[-1]'", "not a shape"});
  replace<std::uint32_t>("tensors/name", type, {0xFFFFFFFFU, 0x78787878U});
  expect_refusal({"'tensors/name' is not UTF-8 in row 0"});
  H5Tclose(type);
}

}  // namespace
}  // namespace moeweld::hdf5
