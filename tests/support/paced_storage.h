#pragma once
/// One rank slower than the others by a factor of reads, not of time: what it has of the work then does not depend on how fast the
/// machine computes or on what else runs there. For ranks that are threads of one process.

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "support/forwarding_storage.h"

namespace moeweld::testing_support {

class Pace {
 public:
  explicit Pace(std::uint64_t factor) : factor_(factor) {}

  void count_fast_read() {
    const std::lock_guard lock(mutex_);
    ++num_fast_;
    for_slow_.notify_all();
  }
  /// Until the others have read `factor` times since the last slow read, or nothing for so long that they must be waiting for this one.
  void wait_before_slow_read() {
    std::unique_lock lock(mutex_);
    const std::uint64_t due = num_fast_at_slow_read_ + factor_;
    while (num_fast_ < due && num_fast_ != num_fast_when_quiet_) {
      const std::uint64_t before = num_fast_;
      if (!for_slow_.wait_for(lock, kQuiet, [&] { return num_fast_ != before; })) num_fast_when_quiet_ = before;
    }
    num_fast_at_slow_read_ = num_fast_;
  }

 private:
  static constexpr std::chrono::milliseconds kQuiet{1000};
  const std::uint64_t factor_;
  std::mutex mutex_;
  std::condition_variable for_slow_;
  std::uint64_t num_fast_ = 0;
  std::uint64_t num_fast_at_slow_read_ = 0;
  std::uint64_t num_fast_when_quiet_ = ~std::uint64_t{0};
};

class PacedStorage final : public ForwardingStorage {
 public:
  PacedStorage(std::shared_ptr<Pace> pace, bool is_slow) : pace_(std::move(pace)), is_slow_(is_slow) {}
  std::unique_ptr<InputFile> open_input(const std::string& path, IoMode mode) override {
    return std::make_unique<Input>(ForwardingStorage::open_input(path, mode), pace_, is_slow_);
  }

 private:
  class Input final : public InputFile {
   public:
    Input(std::unique_ptr<InputFile> below, std::shared_ptr<Pace> pace, bool is_slow)
        : below_(std::move(below)), pace_(std::move(pace)), is_slow_(is_slow) {}
    const std::string& path() const override { return below_->path(); }
    FileIdentity identity() const override { return below_->identity(); }
    void read(std::uint64_t offset, std::span<std::byte> buffer) override {
      if (is_slow_) pace_->wait_before_slow_read();
      below_->read(offset, buffer);
      if (!is_slow_) pace_->count_fast_read();
    }

   private:
    const std::unique_ptr<InputFile> below_;
    const std::shared_ptr<Pace> pace_;
    const bool is_slow_;
  };

  const std::shared_ptr<Pace> pace_;
  const bool is_slow_;
};

}  // namespace moeweld::testing_support
