#pragma once
/// A storage for merges that are larger than the disk: weights cost nothing to keep. Everything else, the journal above all, is real.

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string_view>

#include "moeweld/base/error.h"
#include "support/forwarding_storage.h"

namespace moeweld::testing_support {

/// What becomes of bytes that are written to weight files (.safetensors), which have their full size in every case.
enum class NullWrites : std::uint8_t {
  kHoles,    ///< blocks of zeros become holes, all others are written: the output is right in every byte, and small if it is zeros
  kNothing,  ///< they are forgotten: the output is no model, and never gets its name ("OUT.discarded" instead)
};

class NullStorage final : public ForwardingStorage {
 public:
  explicit NullStorage(NullWrites writes) : writes_(writes) {}

  std::unique_ptr<OutputFile> open_output(const std::string& path, IoMode mode) override {
    std::unique_ptr<OutputFile> file;
    if (!is_weights(path)) return std::make_unique<CountedFile>(ForwardingStorage::open_output(path, mode), other_bytes_);
    if (writes_ == NullWrites::kHoles) file = ForwardingStorage::open_output(path, IoMode::kBuffered);
    return std::make_unique<NullFile>(std::move(file), *this);
  }

  /// Full size, no space.
  void create_sized(const std::string& path, std::uint64_t size_bytes) override {
    if (!is_weights(path)) return ForwardingStorage::create_sized(path, size_bytes);
    std::ofstream(path, std::ios::app);
    std::error_code error;
    std::filesystem::resize_file(path, size_bytes, error);
    if (error) throw Error(ErrorCode::kIo, "cannot be given its size: " + error.message(), path);
  }

  void rename(const std::string& from, const std::string& to) override {
    if (writes_ == NullWrites::kHoles) return ForwardingStorage::rename(from, to);
    ForwardingStorage::remove_all(to + ".discarded");
    ForwardingStorage::rename(from, to + ".discarded");
  }

  SpaceInfo space(const std::string& path) override {
    SpaceInfo info = ForwardingStorage::space(path);
    info.available_bytes = std::numeric_limits<std::uint64_t>::max();
    return info;
  }

  std::uint64_t weight_bytes() const { return weight_bytes_; }  ///< handed over for weight files
  std::uint64_t kept_bytes() const { return kept_bytes_; }      ///< of them, written in truth
  std::uint64_t other_bytes() const { return other_bytes_; }    ///< written to all other files: the journal
  std::uint64_t highest_offset() const { return highest_offset_; }

 private:
  class CountedFile final : public OutputFile {
   public:
    CountedFile(std::unique_ptr<OutputFile> below, std::atomic<std::uint64_t>& bytes) : below_(std::move(below)), bytes_(bytes) {}
    void write(std::uint64_t offset, std::span<const std::byte> bytes) override {
      below_->write(offset, bytes);
      bytes_ += bytes.size();
    }
    void sync() override { below_->sync(); }

   private:
    std::unique_ptr<OutputFile> below_;
    std::atomic<std::uint64_t>& bytes_;
  };

  class NullFile final : public OutputFile {
   public:
    NullFile(std::unique_ptr<OutputFile> below, NullStorage& storage) : below_(std::move(below)), storage_(storage) {}

    void write(std::uint64_t offset, std::span<const std::byte> bytes) override {
      storage_.weight_bytes_ += bytes.size();
      std::uint64_t highest = storage_.highest_offset_;
      while (highest < offset + bytes.size() && !storage_.highest_offset_.compare_exchange_weak(highest, offset + bytes.size())) {
      }
      if (!below_) return;
      for (std::size_t done = 0; done < bytes.size(); done += kBlockBytes) {
        const std::span<const std::byte> block = bytes.subspan(done, std::min(kBlockBytes, bytes.size() - done));
        if (is_zero(block)) continue;
        below_->write(offset + done, block);
        storage_.kept_bytes_ += block.size();
      }
    }
    void sync() override {
      if (below_) below_->sync();
    }

   private:
    static constexpr std::size_t kBlockBytes = 4096;
    static bool is_zero(std::span<const std::byte> block) {
      return block.empty() || (block[0] == std::byte{0} && std::memcmp(block.data(), block.data() + 1, block.size() - 1) == 0);
    }
    std::unique_ptr<OutputFile> below_;
    NullStorage& storage_;
  };

  static bool is_weights(std::string_view path) { return path.ends_with(".safetensors"); }

  const NullWrites writes_;
  std::atomic<std::uint64_t> weight_bytes_{0};
  std::atomic<std::uint64_t> kept_bytes_{0};
  std::atomic<std::uint64_t> other_bytes_{0};
  std::atomic<std::uint64_t> highest_offset_{0};
};

}  // namespace moeweld::testing_support
