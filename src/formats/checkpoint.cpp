#include "moeweld/formats/checkpoint.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "checkpoint_config.h"
#include "moeweld/base/error.h"
#include "moeweld/base/text.h"
#include "moeweld/formats/shard_index.h"

namespace moeweld::formats {
namespace {

constexpr std::uint64_t kMaxIndexBytes = 100'000'000;
constexpr std::size_t kMaxProblemsPerFile = 20;
constexpr std::string_view kIndexName = "model.safetensors.index.json";
constexpr std::string_view kSingleName = "model.safetensors";

Hdf5Reader the_hdf5_reader = nullptr;

bool ends_with(std::string_view text, std::string_view suffix) {
  return text.size() >= suffix.size() && text.substr(text.size() - suffix.size()) == suffix;
}

SafetensorsHeader read_header(InputFile& file) {
  std::array<std::byte, 8> first{};
  const std::uint64_t file_size_bytes = file.identity().size_bytes;
  const auto num_first = static_cast<std::size_t>(std::min<std::uint64_t>(file_size_bytes, first.size()));
  file.read(0, std::span(first).first(num_first));
  const std::uint64_t length = parse_header_length(std::span(first).first(num_first), file_size_bytes, file.path());
  std::string text(static_cast<std::size_t>(length), '\0');
  file.read(8, std::as_writable_bytes(std::span(text)));
  return parse_safetensors_header(text, file_size_bytes, file.path());
}

/// Reads one directory; problems are collected over all its files.
class CheckpointReader {
 public:
  CheckpointReader(Storage& storage, const std::string& directory) : storage_(storage) { checkpoint_.directory = directory; }

  Checkpoint read() {
    if (!storage_.is_directory(checkpoint_.directory)) {
      throw Error(ErrorCode::kInvalidInput,
                  storage_.exists(checkpoint_.directory) ? "this is a file, not a model directory" : "there is no such model directory",
                  checkpoint_.directory);
    }
    list_files();
    problems_.attempt([&] {
      checkpoint_.config = read_model_config(storage_, checkpoint_.directory);
      refuse_quantisation(checkpoint_.config, path_of("config.json"));
    });
    std::vector<std::string> tensor_files;
    if (!problems_.attempt([&] { tensor_files = find_tensor_files(); })) problems_.throw_if_any();
    for (const std::string& name : tensor_files) read_file(name);
    // Names can be compared only when every header could be read.
    if (headers_complete_) {
      map_names();
      if (index_) compare_with_index();
    }
    problems_.throw_if_any();
    name_other_files(tensor_files);
    return std::move(checkpoint_);
  }

 private:
  std::string path_of(std::string_view name) const { return checkpoint_.directory + "/" + std::string(name); }
  bool has_file(std::string_view name) const { return names_.count(std::string(name)) != 0; }

  void list_files() {
    for (DirectoryEntry& entry : storage_.list(checkpoint_.directory)) {
      if (entry.is_directory) continue;
      if (storage_.exists(path_of(entry.name))) {
        names_.insert(std::move(entry.name));
      } else {
        checkpoint_.notes.push_back("'" + printable(entry.name) + "' is a symbolic link to a file that is not there");
      }
    }
  }

  std::vector<std::string> find_tensor_files() {
    if (has_file(kIndexName)) {
      const std::string path = path_of(kIndexName);
      index_ = parse_shard_index(storage_.read_text(path, kMaxIndexBytes), path);
      return files_of_index(path);
    }
    if (has_file(kSingleName)) return {std::string(kSingleName)};
    std::vector<std::string> found;
    for (const std::string& name : names_) {
      if (ends_with(name, ".safetensors")) found.push_back(name);
    }
    if (found.empty()) {
      // TensorFlow's weights have a name of their own, and groups.
      for (const std::string& name : names_) {
        if (ends_with(name, ".h5") && name != "tf_model.h5") found.push_back(name);
      }
    }
    if (found.empty()) throw_no_tensors();
    return found;
  }

  std::vector<std::string> files_of_index(const std::string& index_path) {
    std::map<std::string, std::pair<std::size_t, std::string>> files;  // name → number of tensors, first tensor
    for (const auto& [tensor, file] : index_->weight_map) {
      auto& [count, first] = files[file];
      if (count++ == 0) first = tensor;
    }
    std::vector<std::string> present;
    for (const auto& [file, tensors] : files) {
      if (has_file(file)) {
        present.push_back(file);
        continue;
      }
      headers_complete_ = false;
      problems_.add(Problem{ErrorCode::kInvalidInput,
                            "is said to be in file '" + printable(file) + "', which is not there (nor are the others of its " +
                                std::to_string(tensors.first) + " tensors). Download the file again",
                            index_path, 0, tensors.second});
    }
    return present;
  }

  [[noreturn]] void throw_no_tensors() const {
    for (const std::string& name : names_) {
      if (ends_with(name, ".gguf")) {
        throw Error(ErrorCode::kUnsupported,
                    "the directory holds GGUF only ('" + printable(name) + "'); use the safetensors version of the model",
                    checkpoint_.directory);
      }
    }
    for (const std::string& name : names_) {
      if (ends_with(name, ".bin") || ends_with(name, ".pt") || ends_with(name, ".pth") || ends_with(name, ".ckpt")) {
        throw Error(ErrorCode::kUnsupported,
                    "the directory holds pickle files only ('" + printable(name) +
                        "'), which can run code and are never opened; convert it with transformers: "
                        "AutoModelForCausalLM.from_pretrained(…).save_pretrained(…, safe_serialization=True)",
                    checkpoint_.directory);
      }
    }
    throw Error(ErrorCode::kInvalidInput, "the directory holds no safetensors and no HDF5 file", checkpoint_.directory);
  }

  void read_file(const std::string& name) {
    const bool read = problems_.attempt([&] {
      const auto file = storage_.open_input(path_of(name), IoMode::kBuffered);
      SafetensorsHeader header;
      if (!ends_with(name, ".h5")) {
        header = read_header(*file);
      } else if (the_hdf5_reader != nullptr) {
        header.tensors = the_hdf5_reader(path_of(name), file->identity().size_bytes);
      } else {
        throw Error(ErrorCode::kUnsupported, "is an HDF5 file, and this program was built without HDF5", path_of(name));
      }
      const auto index = static_cast<std::uint32_t>(checkpoint_.files.size());
      checkpoint_.files.push_back({path_of(name), file->identity()});
      file_names_.push_back(name);
      for (SafetensorsTensor& tensor : header.tensors) {
        checkpoint_.tensors.push_back(
            {std::move(tensor.name), tensor.dtype, std::move(tensor.shape), index, tensor.begin, tensor.end - tensor.begin});
      }
    });
    if (!read) headers_complete_ = false;
  }

  void map_names() {
    checkpoint_.by_name.reserve(checkpoint_.tensors.size());
    for (std::size_t i = 0; i < checkpoint_.tensors.size(); ++i) {
      const CheckpointTensor& tensor = checkpoint_.tensors[i];
      const auto [place, is_new] = checkpoint_.by_name.emplace(tensor.name, static_cast<std::uint32_t>(i));
      if (is_new) continue;
      const std::string& other = file_names_[checkpoint_.tensors[place->second].file];
      add_problem(Problem{ErrorCode::kInvalidInput,
                          "is in two files: '" + printable(file_names_[tensor.file]) + "' and '" + printable(other) +
                              "'. Remove the file that does not belong to the model, or add its index",
                          checkpoint_.directory, 0, tensor.name});
    }
  }

  void compare_with_index() {
    const std::string path = path_of(kIndexName);
    for (const auto& [name, file] : index_->weight_map) {
      const auto found = checkpoint_.by_name.find(name);
      if (found == checkpoint_.by_name.end()) {
        add_problem(Problem{ErrorCode::kInvalidInput,
                            "is said to be in file '" + printable(file) + "', whose header does not name it, nor does another file's", path,
                            0, name});
        continue;
      }
      const std::string& real = file_names_[checkpoint_.tensors[found->second].file];
      if (real != file) {
        add_problem(Problem{ErrorCode::kInvalidInput,
                            "is said to be in file '" + printable(file) + "', but it is in '" + printable(real) + "'", path, 0, name});
      }
    }
    for (const CheckpointTensor& tensor : checkpoint_.tensors) {
      if (index_->weight_map.count(tensor.name) == 0) {
        add_problem(Problem{ErrorCode::kInvalidInput,
                            "is in file '" + printable(file_names_[tensor.file]) + "', but the index does not name it", path, 0,
                            tensor.name});
      }
    }
  }

  // A shard of another model disagrees about every tensor; the first ones tell enough.
  void add_problem(Problem problem) {
    if (++num_disagreements_ <= kMaxProblemsPerFile) {
      problems_.add(std::move(problem));
    } else if (num_disagreements_ == kMaxProblemsPerFile + 1) {
      problems_.add(
          Problem{ErrorCode::kInvalidInput, "headers and index disagree about more tensors than are listed", problem.path, 0, ""});
    }
  }

  void name_other_files(const std::vector<std::string>& tensor_files) {
    const std::set<std::string> taken(tensor_files.begin(), tensor_files.end());
    for (const std::string& name : names_) {
      if (name == "config.json" || name == kIndexName || taken.count(name) != 0) continue;
      checkpoint_.other_files.push_back(name);
      if (ends_with(name, ".safetensors")) {
        checkpoint_.notes.push_back("'" + printable(name) + "' is not read: " +
                                    (index_ ? "the index does not name it" : "'" + std::string(kSingleName) + "' is the model"));
      }
    }
  }

  Storage& storage_;
  Checkpoint checkpoint_;
  std::set<std::string> names_;  ///< files of the directory
  std::vector<std::string> file_names_;
  std::optional<ShardIndex> index_;
  ProblemList problems_;
  std::size_t num_disagreements_ = 0;
  bool headers_complete_ = true;
};

}  // namespace

void set_hdf5_reader(Hdf5Reader reader) { the_hdf5_reader = reader; }

Hdf5Reader hdf5_reader() { return the_hdf5_reader; }

const CheckpointTensor* Checkpoint::find(std::string_view name) const {
  const auto found = by_name.find(std::string(name));
  return found == by_name.end() ? nullptr : &tensors[found->second];
}

bool Checkpoint::has_file(const std::string& name) const { return std::binary_search(other_files.begin(), other_files.end(), name); }

std::string Checkpoint::architecture() const {
  const auto found = config.find("architectures");
  if (found == config.end() || !found->is_array() || found->empty() || !found->front().is_string()) return "";
  return found->front().get<std::string>();
}

std::uint64_t Checkpoint::total_bytes() const {
  std::uint64_t total = 0;
  for (const CheckpointTensor& tensor : tensors) total += tensor.size_bytes;
  return total;
}

Checkpoint read_checkpoint(Storage& storage, const std::string& directory) { return CheckpointReader(storage, directory).read(); }

}  // namespace moeweld::formats
