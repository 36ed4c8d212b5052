#include "moeweld/hdf5/hdf5_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <cstring>
#include <random>

#include "hdf5/boxes.h"
#include "moeweld/base/checked.h"
#include "unit/expect_error.h"
#include "unit/temporary_directory.h"

namespace moeweld::hdf5 {
namespace {

using ::testing::Each;

/// A plan with these tensors one after the other behind `metadata_bytes`, and nothing else.
plan::MergePlan make_plan(const std::vector<formats::TensorLayout>& tensors, std::uint64_t metadata_bytes = kMiB) {
  plan::MergePlan plan;
  plan.title = "tensors";
  plan.config_text = "merge_method: linear # größer\n";
  plan::PlannedOutputFile file;
  file.name = "model.h5";
  file.own_metadata_bytes = metadata_bytes;
  std::uint64_t position = metadata_bytes;
  for (const formats::TensorLayout& tensor : tensors) {
    const std::uint64_t size = num_elements(tensor.shape) * size_bytes(tensor.dtype);
    plan.tensors.push_back({tensor.name, tensor.dtype, tensor.shape, 0, position, size});
    position += size;
  }
  file.size_bytes = position;
  plan.output_files = {file};
  return plan;
}

class Hdf5FileTest : public ::testing::Test {
 protected:
  /// Writes `data`, what the file shall hold after its metadata, in pieces of these sizes over and over.
  void write(const plan::MergePlan& plan, const std::string& data, const std::vector<std::size_t>& sizes) {
    const auto peers = make_single_peer();
    const auto writer = make_hdf5_writer(*peers, *storage_, {"1.2.3"}, false);
    const plan::FileRun everything{0, 0, plan.output_files[0].size_bytes};
    writer->open(directory_.path(), plan, {.world_size = 1, .runs = {{everything}}, .measurements = {}});
    std::size_t number = 0;
    for (std::size_t done = 0; done < data.size();) {
      const std::size_t size = std::min(sizes[number++ % sizes.size()], data.size() - done);
      writer->write({0, plan.output_files[0].own_metadata_bytes + done, std::as_bytes(std::span(data).subspan(done, size))});
      done += size;
    }
    writer->finish_writing({});
    writer->close();
  }

  std::string bytes_of(const formats::SafetensorsTensor& tensor) {
    std::string text(tensor.end - tensor.begin, '\0');
    storage_->open_input(directory_ / "model.h5", IoMode::kBuffered)->read(tensor.begin, std::as_writable_bytes(std::span(text)));
    return text;
  }

  std::vector<formats::SafetensorsTensor> header() {
    return read_hdf5_header(directory_ / "model.h5", storage_->identity(directory_ / "model.h5").value().size_bytes);
  }

  TemporaryDirectory directory_;
  std::shared_ptr<Storage> storage_ = make_posix_storage();
};

std::string random_bytes(std::size_t size) {
  std::mt19937 random(3);
  std::string text(size, '\0');
  for (char& byte : text) byte = static_cast<char>(random());
  return text;
}

TEST(Boxes, AreTheRunInOrderWhateverTheShape) {
  for (const Shape& shape : {Shape{7}, Shape{3, 5}, Shape{2, 3, 4}, Shape{2, 1, 3, 2}}) {
    const std::uint64_t total = num_elements(shape);
    for (std::uint64_t first = 0; first < total; ++first) {
      for (std::uint64_t count = 1; count <= total - first; ++count) {
        std::vector<std::uint64_t> found;
        std::size_t num_boxes = 0;
        for_boxes(shape, first, count, [&](auto start, auto extent, std::uint64_t num) {
          ++num_boxes;
          const std::size_t before = found.size();
          for (std::uint64_t i = 0; i < total; ++i) {  // every element that lies in the box
            std::uint64_t rest = i;
            bool inside = true;
            for (std::size_t d = shape.size(); d-- > 0; rest /= shape[d])
              inside = inside && rest % shape[d] >= start[d] && rest % shape[d] < start[d] + extent[d];
            if (inside) found.push_back(i);
          }
          EXPECT_EQ(found.size() - before, num);
        });
        ASSERT_EQ(found.size(), count);
        for (std::uint64_t i = 0; i < count; ++i) ASSERT_EQ(found[i], first + i) << to_string(shape);
        EXPECT_LE(num_boxes, 2 * shape.size() - 1);
      }
    }
  }
}

const std::vector<formats::TensorLayout> kEveryType = {
    {"f64", DType::kF64, {3, 5}},     {"i64", DType::kI64, {2}},  {"u64", DType::kU64, {1, 1, 2}}, {"f32", DType::kF32, {4, 3, 2}},
    {"scalar", DType::kF32, {}},      {"i32", DType::kI32, {5}},  {"u32", DType::kU32, {5}},       {"bf16", DType::kBF16, {31, 7}},
    {"f16", DType::kF16, {2, 3}},     {"i16", DType::kI16, {9}},  {"u16", DType::kU16, {9}},       {"none", DType::kBF16, {0, 4}},
    {"i8", DType::kI8, {3}},          {"u8", DType::kU8, {3, 3}}, {"bool", DType::kBool, {2, 2}},  {"e4m3", DType::kF8E4M3, {130, 3}},
    {"e5m2", DType::kF8E5M2, {2, 64}}};

TEST_F(Hdf5FileTest, EveryTypeAndShapeComesBackBitForBit) {
  const plan::MergePlan plan = make_plan(kEveryType);
  const std::string data = random_bytes(plan.output_files[0].size_bytes - kMiB);
  write(plan, data, {64, 8, 32, 16, 128});  // pieces end within rows and tensors, but within no element
  std::map<std::string, formats::SafetensorsTensor> found;
  for (const auto& tensor : header()) found[tensor.name] = tensor;
  ASSERT_EQ(found.size(), kEveryType.size());
  for (const plan::PlannedTensor& tensor : plan.tensors) {
    const formats::SafetensorsTensor& read = found.at(tensor.name);
    EXPECT_EQ(read.dtype, tensor.dtype) << tensor.name;
    EXPECT_EQ(read.shape, tensor.shape) << tensor.name;
    EXPECT_TRUE(bytes_of(read) == data.substr(tensor.begin - kMiB, tensor.size_bytes)) << tensor.name;
  }
}

TEST_F(Hdf5FileTest, MoreThanTwoToThe31Elements) {
  const std::uint64_t rows = 100'000;
  const std::uint64_t columns = 30'000;
  const plan::MergePlan plan = make_plan({{"wide", DType::kF64, {2}}, {"huge", DType::kU8, {rows, columns}}, {"last", DType::kU8, {5}}});
  const auto peers = make_single_peer();
  const auto writer = make_hdf5_writer(*peers, *storage_, {}, false);
  // Sparse: only the ends are written. tmpfs and all disks leave holes where fallocate is not asked for.
  writer->open(directory_.path(), plan, {.world_size = 1, .runs = {{{0, 0, plan.output_files[0].size_bytes}}}, .measurements = {}});
  const std::uint64_t end = plan.output_files[0].size_bytes;
  const std::string tail = random_bytes(70'005);  // the last two rows and a bit, and all of "last"
  writer->write({0, end - tail.size(), std::as_bytes(std::span(tail))});
  writer->finish_writing({});
  writer->close();
  const auto tensors = header();
  ASSERT_EQ(tensors.size(), 3U);
  EXPECT_EQ(tensors[1].shape, (Shape{rows, columns}));
  EXPECT_EQ(tensors[1].end - tensors[1].begin, rows * columns);
  std::string found(tail.size(), '\0');
  storage_->open_input(directory_ / "model.h5", IoMode::kBuffered)->read(tensors[1].end - 70'000, std::as_writable_bytes(std::span(found)));
  EXPECT_TRUE(found == tail);
}

TEST_F(Hdf5FileTest, ManyTensorsFitThePlannedMetadata) {
  std::vector<formats::TensorLayout> tensors;
  for (int i = 0; i < 5000; ++i) tensors.push_back({"model.layers." + std::to_string(i) + ".mlp.experts.7.w1.weight", DType::kBF16, {3}});
  const plan::MergePlan plan = make_plan(tensors, 4 * kMiB);
  write(plan, random_bytes(plan.output_files[0].size_bytes - 4 * kMiB), {6000});
  EXPECT_EQ(header().size(), 5000U);
}

TEST_F(Hdf5FileTest, ACutFileIsNamedWithBothNumbers) {
  const plan::MergePlan plan = make_plan({{"a", DType::kF32, {1000}}, {"b", DType::kF32, {1000}}});
  write(plan, random_bytes(8000), {8000});
  const std::uint64_t size = plan.output_files[0].size_bytes;
  // HDF5 itself compares the file's length with what its superblock says; read_hdf5_header compares again.
  expect_error([&] { read_hdf5_header(directory_ / "model.h5", size - 10); }, ErrorCode::kInvalidInput, {"b", std::to_string(size - 10)});
  std::filesystem::resize_file(directory_ / "model.h5", size - 10);
  expect_error([&] { header(); }, ErrorCode::kInvalidInput, {"model.h5"});
  directory_.write("model.h5", "no such thing");
  expect_error([&] { header(); }, ErrorCode::kInvalidInput, {"not an HDF5 file"});
}

/// What other programs write and this format does not have.
class ForeignFile {
 public:
  explicit ForeignFile(const std::string& path) : file_(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT)) {}
  ~ForeignFile() { H5Fclose(file_); }
  ForeignFile(const ForeignFile&) = delete;
  ForeignFile& operator=(const ForeignFile&) = delete;
  hid_t get() const { return file_; }

  void add(const char* name, hid_t type, bool chunked = false, bool written = true) {
    const hsize_t size = 4;
    const hid_t space = H5Screate_simple(1, &size, nullptr);
    const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    if (chunked) H5Pset_chunk(creation, 1, &size);
    const hid_t dataset = H5Dcreate2(file_, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    const std::array<double, 4> values = {1, 2, 3, 4};
    if (written) H5Dwrite(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
    H5Dclose(dataset);
    H5Pclose(creation);
    H5Sclose(space);
  }

 private:
  hid_t file_;
};

TEST_F(Hdf5FileTest, WhatOtherProgramsWriteIsReadWhereItIsOneRunOfBytes) {
  {
    ForeignFile file(directory_ / "model.h5");
    file.add("plain", H5T_IEEE_F32LE);
  }
  const auto tensors = header();
  ASSERT_EQ(tensors.size(), 1U);
  EXPECT_EQ(tensors[0].dtype, DType::kF32);
  const std::array<float, 4> expected = {1, 2, 3, 4};
  EXPECT_EQ(std::memcmp(bytes_of(tensors[0]).data(), expected.data(), sizeof expected), 0);
}

TEST_F(Hdf5FileTest, WhatIsNotReadIsRefusedByNameAllAtOnce) {
  {
    ForeignFile file(directory_ / "model.h5");
    file.add("big", H5T_IEEE_F32BE);
    file.add("chunky", H5T_IEEE_F32LE, true);
    file.add("unwritten", H5T_IEEE_F32LE, false, false);
    H5Gclose(H5Gcreate2(file.get(), "group", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Lcreate_external("/etc/passwd", "x", file.get(), "link", H5P_DEFAULT, H5P_DEFAULT);
  }
  try {
    header();
    FAIL() << "nothing was refused";
  } catch (const Error& error) {
    std::vector<std::string> names;
    for (const Problem& problem : error.problems()) names.push_back(problem.tensor);
    EXPECT_THAT(names, testing::UnorderedElementsAre("big", "chunky", "unwritten", "group", "link"));
    EXPECT_THAT(error.what(), testing::HasSubstr("h5repack"));
  }
}

TEST_F(Hdf5FileTest, NoByteDependsOnTheTime) {
  const plan::MergePlan plan = make_plan(kEveryType);
  const std::string data = random_bytes(plan.output_files[0].size_bytes - kMiB);
  write(plan, data, {64});
  const std::string first = storage_->read_text(directory_ / "model.h5", 1 << 30);
  write(plan, data, {128});
  EXPECT_TRUE(storage_->read_text(directory_ / "model.h5", 1 << 30) == first);
}

TEST_F(Hdf5FileTest, ADirectoryThatIsNotThereIsAnIoError) {
  const plan::MergePlan plan = make_plan({{"a", DType::kF32, {1}}});
  const auto peers = make_single_peer();
  const auto writer = make_hdf5_writer(*peers, *storage_, {}, false);
  expect_error([&] { writer->open(directory_ / "nowhere", plan, {.world_size = 1, .runs = {{}}, .measurements = {}}); }, ErrorCode::kIo,
               {"nowhere/model.h5", "HDF5"});
}

}  // namespace
}  // namespace moeweld::hdf5
