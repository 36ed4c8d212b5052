#include "moeweld/formats/model_locator.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include "moeweld/formats/checkpoint.h"
#include "safetensors_bytes.h"
#include "unit/expect_error.h"
#include "unit/temporary_directory.h"

namespace moeweld::formats {
namespace {

const std::string kFirst = "0123456789abcdef0123456789abcdef01234567";
const std::string kSecond = "0123456fffffffffffffffffffffffffffffffff";

// As huggingface_hub lays it out: snapshots of symbolic links into blobs.
class HubCache : public testing::Test {
 protected:
  HubCache() {
    const std::string model = "models--org--name/";
    cache_.write(model + "refs/main", kFirst + "\n");
    cache_.write(model + "refs/refs/pr/1", kSecond);
    cache_.write(model + "blobs/aaa", "{}");
    cache_.write(model + "blobs/bbb", file_with("{" + f32_entry("t", 1) + "}", 4));
    for (const std::string& commit : {kFirst, kSecond}) {
      const std::string snapshot = cache_ / (model + "snapshots/" + commit);
      std::filesystem::create_directories(snapshot);
      std::filesystem::create_symlink("../../blobs/aaa", snapshot + "/config.json");
      std::filesystem::create_symlink("../../blobs/bbb", snapshot + "/model.safetensors");
    }
  }
  std::string locate(const std::string& name, const std::optional<std::string>& revision = {}) {
    return locate_model(*storage_, {cache_.path()}, name, revision);
  }
  std::string snapshot(const std::string& commit) const { return cache_ / ("models--org--name/snapshots/" + commit); }

  std::shared_ptr<Storage> storage_ = make_posix_storage();
  TemporaryDirectory cache_;
};

TEST_F(HubCache, MainIsTheDefaultRevision) {
  EXPECT_EQ(locate("org/name"), snapshot(kFirst));
  EXPECT_EQ(read_checkpoint(*storage_, locate("org/name")).tensors.size(), 1U);
}

TEST_F(HubCache, RevisionsAreRefsCommitsOrUniquePrefixes) {
  EXPECT_EQ(locate("org/name", "refs/pr/1"), snapshot(kSecond));
  EXPECT_EQ(locate("org/name", kSecond), snapshot(kSecond));
  EXPECT_EQ(locate("org/name", "01234567"), snapshot(kFirst));
  EXPECT_EQ(locate("org/name", "0123456f"), snapshot(kSecond));
}

TEST_F(HubCache, UnknownRevisionsAreRefusedWithThoseThatAreThere) {
  for (const char* revision : {"v2", "fffffff", "012345", "", "..", "../../x", "/etc"}) {
    expect_error([&] { locate("org/name", revision); }, ErrorCode::kInvalidInput, {"'org/name'", "main", "refs/pr/1", kFirst, kSecond});
  }
  expect_error([&] { locate("org/name", "0123456"); }, ErrorCode::kInvalidInput, {"2 commits begin with these digits"});
}

TEST_F(HubCache, ARefToAMissingSnapshotOrToNoCommitIsNamed) {
  cache_.write("models--org--name/refs/gone", "abc123");
  expect_error([&] { locate("org/name", "gone"); }, ErrorCode::kInvalidInput, {"abc123", snapshot("abc123")});
  cache_.write("models--org--name/refs/bad", "../../../etc");
  expect_error([&] { locate("org/name", "bad"); }, ErrorCode::kInvalidInput, {"refs/bad", "../../../etc"});
}

TEST_F(HubCache, ADirectoryWinsButHasNoRevision) {
  const TemporaryDirectory directory;
  EXPECT_EQ(locate(directory.path()), directory.path());
  expect_error([&] { locate(directory.path(), "main"); }, ErrorCode::kInvalidInput, {directory.path(), "no revision 'main'"});
}

TEST_F(HubCache, AModelThatIsNotThereIsRefusedWithEveryPlace) {
  expect_error([&] { locate("org/other"); }, ErrorCode::kInvalidInput,
               {"'org/other'", "the directory 'org/other'", cache_ / "models--org--other", "never downloads", "(hf download org/other)"});
  for (const char* name : {"../name", "org/name/deep", "/none/at/all", "org/.."}) {
    expect_error([&] { locate(name); }, ErrorCode::kInvalidInput, {std::string("'") + name + "'", "never downloads: give a directory"});
    try {
      locate(name);
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).find("hf download"), std::string::npos) << "the hub has no such name";
    }
  }
  expect_error([&] { locate(""); }, ErrorCode::kInvalidInput, {"empty name"});
  expect_error([&] { locate_model(*storage_, {""}, "org/name", {}); }, ErrorCode::kInvalidInput, {"no hub cache"});
}

TEST(HubCacheEnvironment, VariablesCountInHuggingFacesOrder) {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"}) unsetenv(name);
  setenv("HOME", "/home/me", 1);
  EXPECT_EQ(hub_cache_environment().hub_cache, "/home/me/.cache/huggingface/hub");
  setenv("XDG_CACHE_HOME", "/xdg", 1);
  EXPECT_EQ(hub_cache_environment().hub_cache, "/xdg/huggingface/hub");
  setenv("HF_HOME", "/hf", 1);
  EXPECT_EQ(hub_cache_environment().hub_cache, "/hf/hub");
  setenv("HUGGINGFACE_HUB_CACHE", "/old", 1);
  EXPECT_EQ(hub_cache_environment().hub_cache, "/old");
  setenv("HF_HUB_CACHE", "/new", 1);
  EXPECT_EQ(hub_cache_environment().hub_cache, "/new");
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"}) unsetenv(name);
}

}  // namespace
}  // namespace moeweld::formats
