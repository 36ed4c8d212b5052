#include "moeweld/formats/checkpoint.h"

#include <gtest/gtest.h>

#include "safetensors_bytes.h"
#include "unit/expect_error.h"
#include "unit/temporary_directory.h"

namespace moeweld::formats {
namespace {

class CheckpointReading : public testing::Test {
 protected:
  CheckpointReading() { directory_.write("config.json", R"({"architectures":["LlamaForCausalLM"],"hidden_size":4})"); }

  Checkpoint read() { return read_checkpoint(*storage_, directory_.path()); }
  void expect_refused(ErrorCode code, std::initializer_list<std::string> parts) {
    expect_error([&] { read(); }, code, parts);
  }
  void write_file(const std::string& name, const std::string& entries, std::size_t data_size_bytes) {
    directory_.write(name, file_with("{" + entries + "}", data_size_bytes));
  }
  void write_index(const std::string& entries) { directory_.write("model.safetensors.index.json", "{\"weight_map\":{" + entries + "}}"); }
  void remove(const std::string& name) { std::filesystem::remove(directory_ / name); }

  std::shared_ptr<Storage> storage_ = make_posix_storage();
  TemporaryDirectory directory_;
};

TEST_F(CheckpointReading, ASingleFileNeedsNoIndex) {
  write_file("model.safetensors", f32_entry("b", 2) + "," + f32_entry("a", 1, 8), 12);
  directory_.write("tokenizer.json", "{}");
  directory_.write("extra.safetensors", "stray");
  directory_.write("original/consolidated.pth", "");
  const Checkpoint checkpoint = read();
  EXPECT_EQ(checkpoint.architecture(), "LlamaForCausalLM");
  ASSERT_EQ(checkpoint.tensors.size(), 2U);
  EXPECT_EQ(checkpoint.tensors[0].name, "b");
  ASSERT_NE(checkpoint.find("a"), nullptr);
  EXPECT_EQ(checkpoint.find("a")->size_bytes, 4U);
  EXPECT_EQ(checkpoint.find("a")->begin, checkpoint.tensors[0].begin + 8);
  EXPECT_EQ(checkpoint.find("c"), nullptr);
  EXPECT_EQ(checkpoint.total_bytes(), 12U);
  EXPECT_EQ(checkpoint.files.at(0).path, directory_ / "model.safetensors");
  EXPECT_EQ(checkpoint.other_files, (std::vector<std::string>{"extra.safetensors", "tokenizer.json"}));
  ASSERT_EQ(checkpoint.notes.size(), 1U);
  EXPECT_NE(checkpoint.notes[0].find("extra.safetensors"), std::string::npos);
}

TEST_F(CheckpointReading, AnIndexNamesFilesOfAnyName) {
  write_file("weights-1-of-2.safetensors", f32_entry("a", 1), 4);
  write_file("weights-2-of-2.safetensors", f32_entry("b", 1) + "," + f32_entry("c", 1, 4), 8);
  write_index(R"("c":"weights-2-of-2.safetensors","b":"weights-2-of-2.safetensors","a":"weights-1-of-2.safetensors")");
  const Checkpoint checkpoint = read();
  EXPECT_EQ(checkpoint.files.size(), 2U);
  EXPECT_EQ(checkpoint.find("c")->file, 1U);
  EXPECT_TRUE(checkpoint.other_files.empty());
}

TEST_F(CheckpointReading, WithoutIndexEverySafetensorsFileIsRead) {
  write_file("x.safetensors", f32_entry("a", 1), 4);
  write_file("y.safetensors", f32_entry("b", 1), 4);
  EXPECT_EQ(read().tensors.size(), 2U);
  write_file("z.safetensors", f32_entry("a", 1), 4);
  expect_refused(ErrorCode::kInvalidInput, {directory_.path(), "tensor 'a'", "x.safetensors", "z.safetensors"});
}

TEST_F(CheckpointReading, AMissingFileOfTheIndexIsNamed) {
  write_index(R"("a":"m-1.safetensors","b":"m-1.safetensors")");
  expect_refused(ErrorCode::kInvalidInput, {"index.json", "tensor 'a'", "'m-1.safetensors'", "2 tensors"});
}

TEST_F(CheckpointReading, ATensorThatNoHeaderHasIsNamed) {
  write_file("m.safetensors", f32_entry("a", 1), 4);
  write_index(R"("a":"m.safetensors","ghost":"m.safetensors")");
  expect_refused(ErrorCode::kInvalidInput, {"index.json", "tensor 'ghost'", "'m.safetensors'"});
}

TEST_F(CheckpointReading, ATensorInAnotherFileThanTheIndexSaysIsNamed) {
  write_file("m.safetensors", f32_entry("a", 1), 4);
  write_file("n.safetensors", f32_entry("b", 1), 4);
  write_index(R"("a":"m.safetensors","b":"m.safetensors","c":"n.safetensors")");
  expect_refused(ErrorCode::kInvalidInput, {"tensor 'b'", "'m.safetensors'", "'n.safetensors'", "tensor 'c'"});
}

TEST_F(CheckpointReading, ATensorInTwoFilesIsNamed) {
  write_file("m.safetensors", f32_entry("a", 1), 4);
  write_file("n.safetensors", f32_entry("a", 1) + "," + f32_entry("b", 1, 4), 8);
  write_index(R"("a":"m.safetensors","b":"n.safetensors")");
  expect_refused(ErrorCode::kInvalidInput, {"tensor 'a'", "two files", "'m.safetensors'", "'n.safetensors'"});
}

TEST_F(CheckpointReading, ATensorThatTheIndexDoesNotNameIsNamed) {
  write_file("m.safetensors", f32_entry("a", 1) + "," + f32_entry("b", 1, 4), 8);
  write_index(R"("a":"m.safetensors")");
  expect_refused(ErrorCode::kInvalidInput, {"index.json", "tensor 'b'", "'m.safetensors'"});
}

TEST_F(CheckpointReading, ProblemsOfAllFilesAreReportedTogether) {
  write_file("m.safetensors", f32_entry("a", 2), 4);
  write_file("n.safetensors", f32_entry("b", 1), 5);
  directory_.write("o.safetensors", "");
  directory_.write("config.json", "[]");
  expect_refused(ErrorCode::kInvalidInput,
                 {"config.json", "m.safetensors: tensor 'a'", "n.safetensors: ", "o.safetensors: the file has 0 bytes"});
}

TEST_F(CheckpointReading, ConfigMustBeThereAndAnObjectOfBoundedSize) {
  write_file("model.safetensors", f32_entry("a", 1), 4);
  directory_.write("config.json", "[]");
  expect_refused(ErrorCode::kInvalidInput, {"config.json", "array", "not an object"});
  directory_.write("config.json", "");
  expect_refused(ErrorCode::kInvalidInput, {"config.json", "empty"});
  directory_.write("config.json", std::string(16'000'001, ' '));
  expect_refused(ErrorCode::kInvalidInput, {"config.json", "16000001 bytes", "16000000"});
  remove("config.json");
  expect_refused(ErrorCode::kInvalidInput, {"config.json", "missing"});
  directory_.write("adapter_config.json", "{}");
  expect_refused(ErrorCode::kUnsupported, {directory_.path(), "LoRA adapter"});
}

TEST_F(CheckpointReading, QuantisedModelsAreRefusedByNameWithAdvice) {
  write_file("model.safetensors", f32_entry("a", 1), 4);
  for (const std::string method : {"gptq", "awq", "compressed-tensors", "bitsandbytes", "mxfp4", "something-new"}) {
    directory_.write("config.json", R"({"quantization_config":{"quant_method":")" + method + "\"}}");
    expect_refused(ErrorCode::kUnsupported, {"config.json", "'" + method + "'", ": "});
  }
  directory_.write("config.json", R"({"text_config":{"quantization_config":{"quant_method":"awq"}}})");
  expect_refused(ErrorCode::kUnsupported, {"'awq'"});
  directory_.write("config.json", R"({"quantization_config":{"bits":4}})");
  expect_refused(ErrorCode::kUnsupported, {"quantised", "does not name"});
  directory_.write("config.json", R"({"quantization_config":7})");
  expect_refused(ErrorCode::kInvalidInput, {"quantization_config", "number"});
  directory_.write("config.json", R"({"quantization_config":null})");
  EXPECT_NO_THROW(read());
  EXPECT_EQ(read().architecture(), "");
}

TEST_F(CheckpointReading, DirectoriesWithoutSafetensorsAreRefusedWithAdvice) {
  expect_refused(ErrorCode::kInvalidInput, {directory_.path(), "no safetensors"});
  directory_.write("pytorch_model.bin", "");
  expect_refused(ErrorCode::kUnsupported, {directory_.path(), "pytorch_model.bin", "pickle", "safe_serialization"});
  remove("pytorch_model.bin");
  directory_.write("model.gguf", "");
  expect_refused(ErrorCode::kUnsupported, {"GGUF", "model.gguf"});
  expect_error([&] { read_checkpoint(*storage_, directory_ / "none"); }, ErrorCode::kInvalidInput, {directory_ / "none", "no such"});
  expect_error([&] { read_checkpoint(*storage_, directory_ / "config.json"); }, ErrorCode::kInvalidInput, {"this is a file"});
}

TEST_F(CheckpointReading, LinksAreFollowedAndDanglingOnesNoted) {
  directory_.write("../blob-of-" + std::filesystem::path(directory_.path()).filename().string(),
                   file_with("{" + f32_entry("a", 1) + "}", 4));
  const std::string blob = "../blob-of-" + std::filesystem::path(directory_.path()).filename().string();
  std::filesystem::create_symlink(blob, directory_ / "model.safetensors");
  std::filesystem::create_symlink("nowhere", directory_ / "vocab.json");
  const Checkpoint checkpoint = read();
  EXPECT_EQ(checkpoint.tensors.size(), 1U);
  EXPECT_TRUE(checkpoint.other_files.empty());
  ASSERT_EQ(checkpoint.notes.size(), 1U);
  EXPECT_NE(checkpoint.notes[0].find("vocab.json"), std::string::npos);
  std::filesystem::remove(directory_ / blob);
}

}  // namespace
}  // namespace moeweld::formats
