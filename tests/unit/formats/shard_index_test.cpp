#include "moeweld/formats/shard_index.h"

#include <gtest/gtest.h>

#include "moeweld/formats/json.h"
#include "unit/expect_error.h"

namespace moeweld::formats {
namespace {

const std::string kIndexPath = "dir/model.safetensors.index.json";

void expect_index_refused(const std::string& json, std::initializer_list<std::string> parts) {
  SCOPED_TRACE(json);
  expect_error([&] { parse_shard_index(json, kIndexPath); }, ErrorCode::kInvalidInput, {kIndexPath});
  expect_error([&] { parse_shard_index(json, kIndexPath); }, ErrorCode::kInvalidInput, parts);
}

std::string naming(const std::string& file) { return R"({"weight_map":{"a.weight":)" + Json(file).dump() + "}}"; }

TEST(ShardIndex, MapsTensorsToFiles) {
  const ShardIndex index = parse_shard_index(
      R"({"metadata":{"total_size":1},"weight_map":{"b":"model-1-of-61.safetensors","a":"model-00002-of-000163.safetensors"}})",
      kIndexPath);
  const std::map<std::string, std::string> expected = {{"a", "model-00002-of-000163.safetensors"}, {"b", "model-1-of-61.safetensors"}};
  EXPECT_EQ(index.weight_map, expected);
}

TEST(ShardIndex, RefusesAFileNameWithASlash) {
  expect_index_refused(naming("sub/model.safetensors"), {"tensor 'a.weight'", "'sub/model.safetensors'", "'/'"});
}
TEST(ShardIndex, RefusesAnAbsoluteFileName) { expect_index_refused(naming("/etc/x.safetensors"), {"tensor 'a.weight'", "absolute"}); }
TEST(ShardIndex, RefusesAFileNameWithABackslash) { expect_index_refused(naming("a\\b.safetensors"), {"tensor 'a.weight'", "'\\'"}); }
TEST(ShardIndex, RefusesAFileNameWithTwoDots) { expect_index_refused(naming("..safetensors"), {"tensor 'a.weight'", "'..'"}); }
TEST(ShardIndex, RefusesAnEmptyFileName) { expect_index_refused(naming(""), {"tensor 'a.weight'", "empty"}); }
TEST(ShardIndex, RefusesAFileNameWithAZeroByte) {
  expect_index_refused(naming(std::string("a\0.safetensors", 14)), {"tensor 'a.weight'", "control character", "a\\x00.safetensors"});
}
TEST(ShardIndex, RefusesPickles) {
  expect_index_refused(naming("pytorch_model.bin"), {"tensor 'a.weight'", "pytorch_model.bin", "safetensors"});
}

TEST(ShardIndex, RefusesWrongTypes) {
  expect_index_refused("[]", {"array", "not an object"});
  expect_index_refused("{}", {"no weight_map"});
  expect_index_refused(R"({"weight_map":[]})", {"weight_map", "array"});
  expect_index_refused(R"({"weight_map":{}})", {"names no tensor"});
  expect_index_refused(R"({"weight_map":{"t":1}})", {"tensor 't'", "number"});
  expect_index_refused(R"({"weight_map":{"t":"a.safetensors","t":"b.safetensors"}})", {"'t'", "twice"});
  expect_index_refused("", {"empty"});
}

TEST(ShardIndex, IsWrittenSortedWithItsSizeInBytes) {
  const ShardIndex index{{{"b", "model-00002-of-00002.safetensors"}, {"a\"", "model-00001-of-00002.safetensors"}}};
  EXPECT_EQ(serialize_shard_index(index, 5'000'000'000),
            "{\n  \"metadata\": {\n    \"total_size\": 5000000000\n  },\n  \"weight_map\": {\n"
            "    \"a\\\"\": \"model-00001-of-00002.safetensors\",\n    \"b\": \"model-00002-of-00002.safetensors\"\n  }\n}\n");
  EXPECT_EQ(parse_shard_index(serialize_shard_index(index, 1), kIndexPath).weight_map, index.weight_map);
}

}  // namespace
}  // namespace moeweld::formats
