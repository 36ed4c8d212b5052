#include "moeweld/verify/verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "moeweld/base/digest.h"
#include "moeweld/exec/manifest.h"
#include "moeweld/formats/safetensors.h"
#include "moeweld/formats/shard_index.h"
#include "unit/expect_error.h"

namespace moeweld::verify {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::SizeIs;

/// An output of two shards (one of several digest chunks), an index, a config.json and a manifest.
class VerifyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "moeweld_verify_XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    write_shard("model-00001-of-00002.safetensors", {{"a", 1'500'000}, {"b", 700'001}});
    write_shard("model-00002-of-00002.safetensors", {{"c", 10}});
    write("config.json", "{}\n");
    formats::ShardIndex index;
    index.weight_map = {
        {"a", "model-00001-of-00002.safetensors"}, {"b", "model-00001-of-00002.safetensors"}, {"c", "model-00002-of-00002.safetensors"}};
    write("model.safetensors.index.json", formats::serialize_shard_index(index, 2'200'011));
    write_manifest();
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string path(const std::string& name) const { return directory_ + "/" + name; }
  void write(const std::string& name, const std::string& content) { std::ofstream(path(name), std::ios::binary) << content; }
  std::string read(const std::string& name) const {
    std::ifstream file(path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  void write_shard(const std::string& name, const std::vector<std::pair<std::string, std::uint64_t>>& tensors) {
    std::vector<formats::TensorLayout> layouts;
    std::string data;
    for (const auto& [tensor, size] : tensors) {
      layouts.push_back({tensor, DType::kU8, {size}});
      for (std::uint64_t i = 0; i < size; ++i) data += static_cast<char>(i * 31 + i / 256);
    }
    write(name, formats::serialize_safetensors_header(layouts) + data);
  }

  /// Over the files as they are now; chunk by chunk as digest.h defines it.
  void write_manifest() {
    exec::Manifest manifest;
    manifest.version = "0";
    for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
      const std::string name = entry.path().filename().string();
      if (name == exec::kManifestName || name == "README.md") continue;
      const std::string content = read(name);
      std::vector<Digest> chunks;
      for (std::size_t offset = 0; offset < content.size(); offset += kDigestChunkBytes) {
        chunks.push_back(
            digest_of(std::as_bytes(std::span(content).subspan(offset, std::min(kDigestChunkBytes, content.size() - offset)))));
      }
      manifest.files.push_back({name, content.size(), "xxh3-128-1MiB:" + to_hex(digest_of_chunks(chunks))});
    }
    write(exec::kManifestName, serialize_manifest(manifest));
  }

  void flip_byte(const std::string& name, std::size_t offset) {
    std::string content = read(name);
    ASSERT_LT(offset, content.size());
    content[offset] = static_cast<char>(content[offset] ^ 1);
    write(name, content);
  }

  VerifyReport run(int ranks = 1, int threads = 2) {
    VerifyReport result;
    run_thread_peers(ranks, [&](Peers& peers) {
      const VerifyReport report = verify(peers, *storage_, directory_, threads, {});
      if (peers.rank() == 0) result = report;
    });
    return result;
  }

  std::vector<Problem> problems(int ranks = 1) {
    try {
      run(ranks);
    } catch (const Error& error) {
      return error.problems();
    }
    return {};
  }

  std::string directory_;
  std::shared_ptr<Storage> storage_ = make_posix_storage();
};

TEST_F(VerifyTest, AcceptsWhatTheManifestDescribes) {
  const VerifyReport report = run();
  EXPECT_EQ(report.num_files, 4u);
  EXPECT_EQ(report.num_tensors, 3u);
  std::uint64_t total = 0;
  for (const char* name :
       {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "config.json", "model.safetensors.index.json"}) {
    total += std::filesystem::file_size(path(name));
  }
  EXPECT_EQ(report.read_bytes, total);
}

TEST_F(VerifyTest, SharesTheChunksAmongAnyNumberOfRanks) {
  const std::uint64_t bytes = run(1).read_bytes;
  for (const int ranks : {2, 3, 9}) EXPECT_EQ(run(ranks, 1).read_bytes, bytes) << ranks;
}

TEST_F(VerifyTest, FindsOneFlippedBitInTheLastShortChunk) {
  flip_byte("model-00001-of-00002.safetensors", std::filesystem::file_size(path("model-00001-of-00002.safetensors")) - 1);
  for (const int ranks : {1, 3}) {
    const auto found = problems(ranks);
    ASSERT_THAT(found, SizeIs(1)) << ranks;
    EXPECT_EQ(found[0].code, ErrorCode::kVerifyFailed);
    EXPECT_EQ(found[0].path, path("model-00001-of-00002.safetensors"));
    EXPECT_THAT(found[0].message, HasSubstr("digest"));
  }
}

TEST_F(VerifyTest, ListsEveryFileThatDiffers) {
  flip_byte("model-00001-of-00002.safetensors", 2'000'000);
  std::filesystem::remove(path("model-00002-of-00002.safetensors"));
  write("config.json", "{ }\n");
  const auto found = problems(2);
  for (const char* name : {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "config.json"}) {
    EXPECT_THAT(found, Contains(::testing::Field(&Problem::path, path(name)))) << name;
  }
}

TEST_F(VerifyTest, NamesBothSizesOfACutFile) {
  std::filesystem::resize_file(path("model-00001-of-00002.safetensors"), 1'000'000);
  const auto found = problems();
  ASSERT_FALSE(found.empty());
  EXPECT_THAT(found[0].message, HasSubstr("1000000"));
  EXPECT_EQ(found[0].code, ErrorCode::kVerifyFailed);
}

TEST_F(VerifyTest, RefusesASafetensorsFileThatTheManifestDoesNotName) {
  write_shard("extra.safetensors", {{"d", 4}});
  const auto found = problems();
  ASSERT_THAT(found, SizeIs(1));
  EXPECT_EQ(found[0].path, path("extra.safetensors"));
}

TEST_F(VerifyTest, IgnoresFilesThatNoLoaderTakesForWeights) {
  write("NOTES.txt", "mine");
  write("README.md", "edited");
  EXPECT_THAT(problems(), SizeIs(0));
}

TEST_F(VerifyTest, FindsAnIndexThatNamesTheWrongFileEvenIfTheManifestAgrees) {
  formats::ShardIndex index;
  index.weight_map = {
      {"a", "model-00002-of-00002.safetensors"}, {"b", "model-00001-of-00002.safetensors"}, {"c", "model-00002-of-00002.safetensors"}};
  write("model.safetensors.index.json", formats::serialize_shard_index(index, 2'200'011));
  write_manifest();
  const auto found = problems();
  ASSERT_THAT(found, SizeIs(1));
  EXPECT_EQ(found[0].tensor, "a");
}

TEST_F(VerifyTest, FindsATensorThatTheIndexDoesNotName) {
  formats::ShardIndex index;
  index.weight_map = {{"a", "model-00001-of-00002.safetensors"}, {"c", "model-00002-of-00002.safetensors"}};
  write("model.safetensors.index.json", formats::serialize_shard_index(index, 2'200'011));
  write_manifest();
  const auto found = problems();
  ASSERT_THAT(found, SizeIs(1));
  EXPECT_EQ(found[0].tensor, "b");
}

TEST_F(VerifyTest, FindsATotalSizeThatIsNotTheSumOfTheTensors) {
  const std::string index = read("model.safetensors.index.json");
  std::string changed = index;
  changed.replace(changed.find("2200011"), 7, "2200012");
  write("model.safetensors.index.json", changed);
  write_manifest();
  const auto found = problems();
  ASSERT_THAT(found, SizeIs(1));
  EXPECT_THAT(found[0].message, ::testing::AllOf(HasSubstr("2200012"), HasSubstr("2200011")));
}

TEST_F(VerifyTest, SaysThatThereIsNoManifest) {
  std::filesystem::remove(path(exec::kManifestName));
  const auto found = problems(2);
  ASSERT_THAT(found, SizeIs(1));
  EXPECT_EQ(found[0].code, ErrorCode::kInvalidInput);
}

TEST_F(VerifyTest, RefusesAManifestOfAnUnknownSchemaByName) {
  std::string text = read(exec::kManifestName);
  text.replace(text.find("moeweld.manifest/1"), 18, "moeweld.manifest/7");
  write(exec::kManifestName, text);
  const auto found = problems();
  ASSERT_THAT(found, SizeIs(1));
  EXPECT_THAT(found[0].message, HasSubstr("moeweld.manifest/7"));
}

TEST_F(VerifyTest, RefusesAManifestThatLeadsOutOfTheDirectory) {
  std::string text = read(exec::kManifestName);
  text.replace(text.find("config.json"), 11, "../passwd");
  write(exec::kManifestName, text);
  const auto found = problems();
  ASSERT_THAT(found, SizeIs(1));
  EXPECT_EQ(found[0].code, ErrorCode::kInvalidInput);
  EXPECT_THAT(found[0].message, HasSubstr("../passwd"));
}

TEST_F(VerifyTest, StopsWhenTheProgressCallbackThrows) {
  const auto peers = make_single_peer();
  const auto interrupt = [](std::uint64_t) { throw Error(ErrorCode::kInterrupted, "stopped"); };
  EXPECT_THROW(verify(*peers, *storage_, directory_, 2, interrupt), Error);
}

TEST(Manifest, ComesBackAsItWasWritten) {
  const exec::Manifest manifest{.version = "1.2",
                                .config = "a: \"b\"\n",
                                .command_line = "moeweld merge x y",
                                .seed = 18446744073709551615u,
                                .simd_targets = {"AVX2", "SSE4"},
                                .inputs = {{"org/name", "m/model.safetensors", 1u << 31, -5}},
                                .outputs = {"expert-0", "expert-1"},
                                .files = {{"config.json", 3, "xxh3-128-1MiB:0123456789abcdef0123456789abcdef"}}};
  const exec::Manifest read = exec::parse_manifest(exec::serialize_manifest(manifest), "m.json");
  EXPECT_EQ(read.version, manifest.version);
  EXPECT_EQ(read.config, manifest.config);
  EXPECT_EQ(read.command_line, manifest.command_line);
  EXPECT_EQ(read.seed, manifest.seed);
  EXPECT_EQ(read.simd_targets, manifest.simd_targets);
  EXPECT_EQ(read.outputs, manifest.outputs);
  ASSERT_THAT(read.inputs, SizeIs(1));
  EXPECT_EQ(read.inputs[0].model, "org/name");
  EXPECT_EQ(read.inputs[0].path, "m/model.safetensors");
  EXPECT_EQ(read.inputs[0].size_bytes, 1u << 31);
  EXPECT_EQ(read.inputs[0].modified_ns, -5);
  ASSERT_THAT(read.files, SizeIs(1));
  EXPECT_EQ(read.files[0].digest, manifest.files[0].digest);
}

TEST(Manifest, DoesNotNameModelsElsewhere) {
  const exec::Manifest manifest{.version = "1", .outputs = {"expert-0", "../../elsewhere"}};
  expect_error([&] { exec::parse_manifest(exec::serialize_manifest(manifest), "m.json"); }, ErrorCode::kInvalidInput,
               {"m.json", "\"outputs\" is not a plain directory name"});
}

}  // namespace
}  // namespace moeweld::verify
