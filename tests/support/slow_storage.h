#pragma once
/// The operating system's files, each read of an input later by as much as it is told.

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "support/forwarding_storage.h"

namespace moeweld::testing_support {

class SlowStorage final : public ForwardingStorage {
 public:
  explicit SlowStorage(std::chrono::milliseconds delay) : delay_(delay) {}
  std::unique_ptr<InputFile> open_input(const std::string& path, IoMode mode) override {
    return std::make_unique<Input>(ForwardingStorage::open_input(path, mode), delay_);
  }

 private:
  class Input final : public InputFile {
   public:
    Input(std::unique_ptr<InputFile> below, std::chrono::milliseconds delay) : below_(std::move(below)), delay_(delay) {}
    const std::string& path() const override { return below_->path(); }
    FileIdentity identity() const override { return below_->identity(); }
    void read(std::uint64_t offset, std::span<std::byte> buffer) override {
      std::this_thread::sleep_for(delay_);
      below_->read(offset, buffer);
    }

   private:
    const std::unique_ptr<InputFile> below_;
    const std::chrono::milliseconds delay_;
  };

  const std::chrono::milliseconds delay_;
};

}  // namespace moeweld::testing_support
