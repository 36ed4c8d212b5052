#include "verify/directory_check.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "moeweld/formats/checkpoint.h"
#include "moeweld/formats/safetensors.h"
#include "moeweld/formats/shard_index.h"

namespace moeweld::verify {

namespace {

constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr std::uint64_t kMaxTextBytes = 1'000'000'000;

bool is_safetensors(const std::string& name) { return name.ends_with(".safetensors"); }
bool is_hdf5(const std::string& name) { return name.ends_with(".h5"); }

/// Directories that one run wrote as several models; none where `directory` is a model itself.
std::vector<std::string> models_below(Storage& storage, const std::string& directory) {
  std::vector<std::string> result;
  if (!storage.is_directory(directory) || storage.exists(directory + "/" + exec::kManifestName)) return result;
  for (const DirectoryEntry& entry : storage.list(directory)) {
    if (storage.exists(directory + "/" + entry.name + "/" + exec::kManifestName)) result.push_back(entry.name);
  }
  std::sort(result.begin(), result.end());
  return result;
}

class DirectoryChecker {
 public:
  DirectoryChecker(Storage& storage, const std::string& directory) : storage_(storage), directory_(directory) {}

  DirectoryCheck run() {
    const exec::Manifest manifest = read_manifest();
    result_.outputs = manifest.outputs;
    for (const exec::ManifestFile& file : manifest.files) {
      names_.insert(file.name);
      check_file(file);
    }
    for (const DirectoryEntry& entry : storage_.list(directory_)) {
      if ((is_safetensors(entry.name) || is_hdf5(entry.name) || entry.name == kIndexName) && !names_.contains(entry.name)) {
        fail(entry.name, "is there, but the manifest does not name it. Remove it, or merge again: loaders may read it.");
      }
    }
    for (const exec::ManifestFile& file : result_.files) {
      if (is_safetensors(file.name)) collect([&] { read_header(file.name); });
      if (is_hdf5(file.name) && formats::hdf5_reader() != nullptr) {
        collect([&] { result_.num_tensors += formats::hdf5_reader()(path(file.name), file.size_bytes).size(); });
      }
    }
    if (names_.contains(kIndexName)) {
      if (storage_.exists(path(kIndexName))) collect([&] { check_index(); });
    } else if (std::count_if(names_.begin(), names_.end(), is_safetensors) > 1) {
      fail(kIndexName, "is not in the manifest, although the model has several safetensors files.");
    }
    return std::move(result_);
  }

 private:
  std::string path(const std::string& name) const { return directory_ + "/" + name; }

  void fail(const std::string& name, std::string message, std::string tensor = {}) {
    result_.problems.add({ErrorCode::kVerifyFailed, std::move(message), path(name), 0, std::move(tensor)});
  }

  /// Damage that a parser finds is what verification looks for; what the system refuses stays an I/O error.
  template <typename Action>
  void collect(Action&& action) {
    try {
      action();
    } catch (const Error& error) {
      for (Problem problem : error.problems()) {
        if (problem.code != ErrorCode::kIo && problem.code != ErrorCode::kInternal) problem.code = ErrorCode::kVerifyFailed;
        result_.problems.add(std::move(problem));
      }
    }
  }

  exec::Manifest read_manifest() {
    if (!storage_.is_directory(directory_)) {
      throw Error(ErrorCode::kInvalidInput, "is not a directory, so there is nothing to verify. Give the directory that moeweld wrote.",
                  directory_);
    }
    const std::string manifest_path = path(exec::kManifestName);
    if (!storage_.exists(manifest_path)) {
      throw Error(ErrorCode::kInvalidInput,
                  "is not there, so nothing says what the files should hold. Only directories that moeweld wrote can be verified; `moeweld "
                  "inspect` "
                  "reads the headers of any model.",
                  manifest_path);
    }
    return exec::parse_manifest(storage_.read_text(manifest_path, kMaxTextBytes), manifest_path);
  }

  void check_file(const exec::ManifestFile& file) {
    const auto identity = storage_.identity(path(file.name));
    if (!identity || storage_.is_directory(path(file.name))) {
      fail(file.name, "is missing: the manifest names it with " + std::to_string(file.size_bytes) + " bytes.");
    } else if (identity->size_bytes != file.size_bytes) {
      fail(file.name, "has " + std::to_string(identity->size_bytes) + " bytes, but the manifest says " + std::to_string(file.size_bytes) +
                          ". The file was cut or replaced; copy it again.");
    } else {
      result_.files.push_back(file);
    }
  }

  void read_header(const std::string& name) {
    const auto file = storage_.open_input(path(name), IoMode::kBuffered);
    const std::uint64_t size_bytes = file->identity().size_bytes;
    std::array<std::byte, 8> first{};
    if (size_bytes < first.size()) {
      fail(name, "has " + std::to_string(size_bytes) + " bytes, too few for a safetensors file.");
      return;
    }
    file->read(0, first);
    const std::uint64_t header_bytes = formats::parse_header_length(first, size_bytes, file->path());
    std::string json(header_bytes, '\0');
    file->read(first.size(), std::as_writable_bytes(std::span(json)));
    for (const formats::SafetensorsTensor& tensor : formats::parse_safetensors_header(json, size_bytes, file->path()).tensors) {
      ++result_.num_tensors;
      tensor_bytes_ += tensor.end - tensor.begin;
      const auto [existing, is_new] = file_of_tensor_.emplace(tensor.name, name);
      if (!is_new) fail(name, "is in " + existing->second + " as well: no tensor may be in two files.", tensor.name);
    }
    headers_read_.insert(name);
  }

  void check_index() {
    const std::string index_path = path(kIndexName);
    const std::string text = storage_.read_text(index_path, kMaxTextBytes);
    const formats::ShardIndex index = formats::parse_shard_index(text, index_path);
    for (const auto& [tensor, file] : index.weight_map) {
      if (!names_.contains(file)) {
        fail(kIndexName, "is said to be in '" + file + "', which the manifest does not name.", tensor);
        continue;
      }
      if (!headers_read_.contains(file)) continue;
      const auto found = file_of_tensor_.find(tensor);
      if (found == file_of_tensor_.end()) {
        fail(kIndexName, "is said to be in '" + file + "', but no file's header has it.", tensor);
      } else if (found->second != file) {
        fail(kIndexName, "is said to be in '" + file + "', but '" + found->second + "' has it.", tensor);
      }
    }
    for (const auto& [tensor, file] : file_of_tensor_) {
      if (!index.weight_map.contains(tensor)) fail(file, "is in this file, but the index does not name it.", tensor);
    }
    check_total_size(text, index_path);
  }

  void check_total_size(const std::string& text, const std::string& index_path) {
    const bool all_headers_read = std::all_of(
        names_.begin(), names_.end(), [&](const std::string& name) { return !is_safetensors(name) || headers_read_.contains(name); });
    const formats::Json json = formats::parse_json(text, index_path);
    const auto metadata = json.find("metadata");
    if (metadata == json.end() || !metadata->is_object() || !metadata->contains("total_size") ||
        !(*metadata)["total_size"].is_number_unsigned()) {
      fail(kIndexName, "has no metadata.total_size that is a number of bytes.");
      return;
    }
    const auto total_size = (*metadata)["total_size"].get<std::uint64_t>();
    if (all_headers_read && total_size != tensor_bytes_) {
      fail(kIndexName, "says total_size " + std::to_string(total_size) + ", but the tensors of all files have " +
                           std::to_string(tensor_bytes_) + " bytes.");
    }
  }

  Storage& storage_;
  const std::string& directory_;
  DirectoryCheck result_;
  std::set<std::string> names_;
  std::set<std::string> headers_read_;
  std::map<std::string, std::string> file_of_tensor_;
  std::uint64_t tensor_bytes_ = 0;
};

}  // namespace

DirectoryCheck check_directory(Storage& storage, const std::string& directory) {
  const std::vector<std::string> models = models_below(storage, directory);
  if (models.empty()) return DirectoryChecker(storage, directory).run();
  DirectoryCheck all;
  std::set<std::string> missing;
  for (const std::string& model : models) {
    const std::string own = directory + "/" + model;
    DirectoryCheck check = DirectoryChecker(storage, own).run();
    for (exec::ManifestFile& file : check.files) {
      file.name = model + "/" + file.name;
      all.files.push_back(std::move(file));
    }
    all.num_tensors += check.num_tensors;
    for (const Problem& problem : check.problems.problems()) all.problems.add(problem);
    for (const std::string& output : check.outputs) {
      if (!std::binary_search(models.begin(), models.end(), output)) missing.insert(output);
    }
  }
  for (const std::string& output : missing) {
    all.problems.add(Problem{ErrorCode::kVerifyFailed,
                             "is missing, or has no manifest: it was written together with " + models.front() + ".",
                             directory + "/" + output,
                             0,
                             {}});
  }
  return all;
}

}  // namespace moeweld::verify
