#pragma once
/// A storage that passes everything on: tests override what they watch or break.

#include <memory>
#include <string>
#include <vector>

#include "moeweld/storage/storage.h"

namespace moeweld::testing_support {

class ForwardingStorage : public Storage {
 public:
  std::unique_ptr<InputFile> open_input(const std::string& path, IoMode mode) override { return below_->open_input(path, mode); }
  std::unique_ptr<OutputFile> open_output(const std::string& path, IoMode mode) override { return below_->open_output(path, mode); }
  void create_sized(const std::string& path, std::uint64_t size_bytes) override { below_->create_sized(path, size_bytes); }
  std::string read_text(const std::string& path, std::uint64_t max_bytes) override { return below_->read_text(path, max_bytes); }
  void write_text(const std::string& path, const std::string& content) override { below_->write_text(path, content); }
  std::optional<FileIdentity> identity(const std::string& path) override { return below_->identity(path); }
  bool is_directory(const std::string& path) override { return below_->is_directory(path); }
  bool exists(const std::string& path) override { return below_->exists(path); }
  std::vector<DirectoryEntry> list(const std::string& path) override { return below_->list(path); }
  void make_directories(const std::string& path) override { below_->make_directories(path); }
  void rename(const std::string& from, const std::string& to) override { below_->rename(from, to); }
  void remove_all(const std::string& path) override { below_->remove_all(path); }
  void sync_directory(const std::string& path) override { below_->sync_directory(path); }
  SpaceInfo space(const std::string& path) override { return below_->space(path); }
  bool is_writable_directory(const std::string& path) override { return below_->is_writable_directory(path); }

 private:
  std::shared_ptr<Storage> below_ = make_posix_storage();
};

}  // namespace moeweld::testing_support
