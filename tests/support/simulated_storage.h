#pragma once
/// A file system in memory that fails as real ones do: errors, a full disk, and after a loss of power any part of what was not synced gone
/// or torn. Everything it does follows from the seed and the order of the calls.

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "moeweld/base/error.h"
#include "moeweld/storage/storage.h"

namespace moeweld::testing_support {

class SimulatedStorage final : public Storage {
 public:
  /// Called before every operation with its name and path; what it throws is what the operation ends with.
  using Hook = std::function<void(const char* operation, const std::string& path)>;

  /// `inputs`: files that are there from the beginning and never change; shared, not copied.
  SimulatedStorage(const std::map<std::string, std::string>& inputs, std::uint32_t seed) : inputs_(inputs), generator_(seed) {}

  void set_hook(Hook hook) { hook_ = std::move(hook); }

  /// The power goes: each write that its handle has not synced since is kept, lost, or torn at a sector; each file that was never synced
  /// may have lost its length, and one made since its directory's last sync its name.
  void lose_power() {
    for (auto& [path, file] : files_) {
      for (auto write = file->unsynced.rbegin(); write != file->unsynced.rend(); ++write) {
        const std::size_t sectors = (write->before.size() + kSectorBytes - 1) / kSectorBytes;
        std::size_t first = 0;  // sectors that are lost
        std::size_t end = sectors;
        switch (generator_() % 4) {
          case 0:
            continue;
          case 1:
            break;
          case 2:
            first = generator_() % (sectors + 1);
            break;
          default:
            end = generator_() % (sectors + 1);
            break;
        }
        const std::size_t begin_byte = std::min(first * kSectorBytes, write->before.size());
        const std::size_t end_byte = std::min(end * kSectorBytes, write->before.size());
        if (begin_byte >= end_byte) continue;
        std::memcpy(file->bytes.data() + write->offset + begin_byte, write->before.data() + begin_byte, end_byte - begin_byte);
        // A file that grew by this write and lost its end is shorter again.
        if (write->length_before < file->bytes.size() && end_byte == write->before.size()) {
          file->bytes.resize(std::max<std::size_t>(write->length_before, write->offset + begin_byte));
        }
      }
      file->unsynced.clear();
      if (!file->was_synced && generator_() % 2 == 0) file->bytes.resize(generator_() % (file->bytes.size() + 1));
    }
    for (const std::string& path : new_entries_) {
      if (generator_() % 2 == 0) files_.erase(path);
    }
    new_entries_.clear();
  }

  /// For the test: no hook.
  const std::string& bytes(const std::string& path) const { return files_.at(path)->bytes; }
  bool has(const std::string& path) const { return files_.contains(path) || is_directory_now(path); }

  std::unique_ptr<InputFile> open_input(const std::string& path, IoMode) override {
    enter("open_input", path);
    return std::make_unique<Input>(*this, path, content(path));
  }
  std::unique_ptr<OutputFile> open_output(const std::string& path, IoMode) override {
    enter("open_output", path);
    require_parent(path);
    auto& file = files_[path];
    if (!file) {
      file = std::make_shared<File>();
      new_entries_.insert(path);
    }
    return std::make_unique<Output>(*this, path, file);
  }
  void create_sized(const std::string& path, std::uint64_t size_bytes) override {
    enter("create_sized", path);
    require_parent(path);
    auto& file = files_[path];
    if (!file) {
      file = std::make_shared<File>();
      new_entries_.insert(path);
    }
    file->bytes.resize(size_bytes);
  }
  std::string read_text(const std::string& path, std::uint64_t) override {
    enter("read_text", path);
    return content(path);
  }
  void write_text(const std::string& path, const std::string& text) override {
    enter("write_text", path);
    require_parent(path);
    auto file = std::make_shared<File>();
    file->bytes = text;
    file->was_synced = true;
    files_[path] = std::move(file);
  }
  std::optional<FileIdentity> identity(const std::string& path) override {
    enter("identity", path);
    if (inputs_.contains(path)) return FileIdentity{inputs_.at(path).size(), 0};
    if (!files_.contains(path)) return std::nullopt;
    return FileIdentity{files_.at(path)->bytes.size(), 0};
  }
  bool is_directory(const std::string& path) override {
    enter("is_directory", path);
    return is_directory_now(path);
  }
  bool exists(const std::string& path) override {
    enter("exists", path);
    return has(path) || inputs_.contains(path);
  }
  std::vector<DirectoryEntry> list(const std::string& path) override {
    enter("list", path);
    std::vector<DirectoryEntry> entries;
    const std::string prefix = path + "/";
    const auto add = [&](const std::string& below, bool is_directory) {
      if (below.starts_with(prefix) && below.find('/', prefix.size()) == std::string::npos)
        entries.push_back({below.substr(prefix.size()), is_directory});
    };
    for (const auto& [name, file] : files_) add(name, false);
    for (const std::string& name : directories_) add(name, true);
    std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
    return entries;
  }
  void make_directories(const std::string& path) override {
    enter("make_directories", path);
    for (std::size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
      directories_.insert(path.substr(0, end));
      if (end == std::string::npos) return;
    }
  }
  void rename(const std::string& from, const std::string& to) override {
    enter("rename", from);
    const auto moved = [&](const std::string& path) { return to + path.substr(from.size()); };
    const auto is_below = [&](const std::string& path) { return path == from || path.starts_with(from + "/"); };
    for (auto& [path, file] : std::exchange(files_, {})) files_[is_below(path) ? moved(path) : path] = file;
    for (const std::string& path : std::exchange(directories_, {})) directories_.insert(is_below(path) ? moved(path) : path);
  }
  /// One file after the other, in any order: a kill may come between.
  void remove_all(const std::string& path) override {
    std::vector<std::string> below;
    for (const auto& [name, file] : files_) {
      if (name == path || name.starts_with(path + "/")) below.push_back(name);
    }
    std::shuffle(below.begin(), below.end(), generator_);
    for (const std::string& name : below) {
      enter("remove", name);
      files_.erase(name);
    }
    enter("remove_all", path);
    std::erase_if(directories_, [&](const std::string& name) { return name == path || name.starts_with(path + "/"); });
  }
  void sync_directory(const std::string& path) override {
    enter("sync_directory", path);
    std::erase_if(new_entries_, [&](const std::string& name) { return name.substr(0, name.find_last_of('/')) == path; });
  }
  SpaceInfo space(const std::string&) override { return {std::uint64_t{1} << 40, "simulated"}; }
  bool is_writable_directory(const std::string& path) override { return is_directory_now(path); }

 private:
  static constexpr std::size_t kSectorBytes = 512;
  struct Write {
    const void* handle = nullptr;  // that can sync it
    std::uint64_t offset = 0;
    std::string before;  // what was there, as long as what was written
    std::size_t length_before = 0;
  };
  struct File {
    std::string bytes;
    std::vector<Write> unsynced;
    bool was_synced = false;
  };

  class Input final : public InputFile {
   public:
    Input(SimulatedStorage& storage, std::string path, const std::string& bytes)
        : storage_(storage), path_(std::move(path)), bytes_(bytes) {}
    const std::string& path() const override { return path_; }
    FileIdentity identity() const override { return {bytes_.size(), 0}; }
    void read(std::uint64_t offset, std::span<std::byte> buffer) override {
      storage_.enter("read", path_);
      const std::size_t there = offset < bytes_.size() ? std::min(buffer.size(), bytes_.size() - static_cast<std::size_t>(offset)) : 0;
      if (there + kDirectAlignment <= buffer.size()) throw Error(ErrorCode::kInvalidInput, "the file ends early", path_);
      if (there != 0) std::memcpy(buffer.data(), bytes_.data() + offset, there);
    }

   private:
    SimulatedStorage& storage_;
    std::string path_;
    const std::string& bytes_;
  };

  class Output final : public OutputFile {
   public:
    Output(SimulatedStorage& storage, std::string path, std::shared_ptr<File> file)
        : storage_(storage), path_(std::move(path)), file_(std::move(file)) {}
    void write(std::uint64_t offset, std::span<const std::byte> bytes) override {
      storage_.enter("write", path_);
      Write write{this, offset, std::string(bytes.size(), '\0'), file_->bytes.size()};
      if (offset + bytes.size() > file_->bytes.size()) file_->bytes.resize(offset + bytes.size());
      std::memcpy(write.before.data(), file_->bytes.data() + offset, bytes.size());
      std::memcpy(file_->bytes.data() + offset, bytes.data(), bytes.size());
      file_->unsynced.push_back(std::move(write));
    }
    void sync() override {
      storage_.enter("sync", path_);
      std::vector<Write> others;
      for (Write& write : file_->unsynced) {
        if (write.handle != this) others.push_back(std::move(write));
      }
      for (const Write& mine : file_->unsynced) {
        if (mine.handle == this) forget(mine, others);
      }
      file_->unsynced = std::move(others);
      file_->was_synced = true;
    }
    ~Output() override {
      for (Write& write : file_->unsynced) {
        if (write.handle == this) write.handle = nullptr;
      }
    }
    Output(const Output&) = delete;
    Output& operator=(const Output&) = delete;

   private:
    /// What stood there before is gone for good where `synced` lies over an older write.
    void forget(const Write& synced, std::vector<Write>& others) const {
      for (Write& other : others) {
        const std::uint64_t begin = std::max(other.offset, synced.offset);
        const std::uint64_t end = std::min(other.offset + other.before.size(), synced.offset + synced.before.size());
        if (begin < end) std::memcpy(other.before.data() + (begin - other.offset), file_->bytes.data() + begin, end - begin);
      }
    }

    SimulatedStorage& storage_;
    std::string path_;
    std::shared_ptr<File> file_;
  };

  void enter(const char* operation, const std::string& path) {
    if (hook_) hook_(operation, path);
  }
  const std::string& content(const std::string& path) {
    if (const auto input = inputs_.find(path); input != inputs_.end()) return input->second;
    if (const auto file = files_.find(path); file != files_.end()) return file->second->bytes;
    throw Error(ErrorCode::kIo, "cannot open: No such file or directory", path);
  }
  bool is_directory_now(const std::string& path) const { return path == "." || path == "/" || directories_.contains(path); }
  void require_parent(const std::string& path) {
    if (!is_directory_now(path.substr(0, path.find_last_of('/'))))
      throw Error(ErrorCode::kIo, "cannot create: No such file or directory", path);
  }

  const std::map<std::string, std::string>& inputs_;
  std::mt19937 generator_;
  Hook hook_;
  std::map<std::string, std::shared_ptr<File>> files_;
  std::set<std::string> directories_;
  std::set<std::string> new_entries_;  // since their directory's last sync
};

}  // namespace moeweld::testing_support
