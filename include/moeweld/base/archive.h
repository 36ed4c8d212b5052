#pragma once
/// Plain values to bytes and back, for what one rank sends another. Little-endian, no padding; reading checks every length.

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "moeweld/base/error.h"

namespace moeweld {

static_assert(std::endian::native == std::endian::little, "checkpoints are little-endian, and so is moeweld");

/// A struct takes part by a free function `template <class Archive> void serialize(Archive& archive, Struct& value)` that passes every
/// member to `archive(...)`; found by argument-dependent lookup. Writing never changes the value.
class ArchiveWriter {
 public:
  static constexpr bool kReading = false;
  template <typename... Values>
  void operator()(Values&... values) {
    (put(values), ...);
  }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  template <typename T>
  void put(T& value) {
    if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>) {
      raw(&value, sizeof value);
    } else {
      serialize(*this, value);
    }
  }
  void put(std::string& value) {
    auto length = static_cast<std::uint64_t>(value.size());
    put(length);
    raw(value.data(), value.size());
  }
  template <typename T>
  void put(std::vector<T>& value) {
    auto length = static_cast<std::uint64_t>(value.size());
    put(length);
    if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::byte>) {
      raw(value.data(), value.size() * sizeof(T));
    } else {
      for (T& element : value) put(element);
    }
  }
  template <typename T>
  void put(std::optional<T>& value) {
    bool present = value.has_value();
    put(present);
    if (present) put(*value);
  }
  template <typename A, typename B>
  void put(std::pair<A, B>& value) {
    put(value.first);
    put(value.second);
  }
  void raw(const void* data, std::size_t size) {
    const auto* first = static_cast<const std::byte*>(data);
    bytes_.insert(bytes_.end(), first, first + size);
  }
  std::vector<std::byte> bytes_;
};

/// Throws Error(kInternal) when the bytes end early or are left over at finish().
class ArchiveReader {
 public:
  static constexpr bool kReading = true;
  explicit ArchiveReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  template <typename... Values>
  void operator()(Values&... values) {
    (get(values), ...);
  }
  void finish() const {
    if (!bytes_.empty()) throw Error(ErrorCode::kInternal, "an archive is longer than what was read from it");
  }

 private:
  template <typename T>
  void get(T& value) {
    if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>) {
      raw(&value, sizeof value);
    } else {
      serialize(*this, value);
    }
  }
  std::size_t length() {
    std::uint64_t result = 0;
    raw(&result, sizeof result);
    if (result > bytes_.size()) throw Error(ErrorCode::kInternal, "an archive ends early");
    return static_cast<std::size_t>(result);
  }
  void get(std::string& value) {
    value.resize(length());
    raw(value.data(), value.size());
  }
  template <typename T>
  void get(std::vector<T>& value) {
    const std::size_t count = length();
    if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::byte>) {
      if (count * sizeof(T) > bytes_.size()) throw Error(ErrorCode::kInternal, "an archive ends early");
      value.resize(count);
      raw(value.data(), count * sizeof(T));
    } else {
      value.clear();
      value.resize(count);
      for (T& element : value) get(element);
    }
  }
  template <typename T>
  void get(std::optional<T>& value) {
    bool present = false;
    get(present);
    value.reset();
    if (present) get(value.emplace());
  }
  template <typename A, typename B>
  void get(std::pair<A, B>& value) {
    get(value.first);
    get(value.second);
  }
  void raw(void* data, std::size_t size) {
    if (size > bytes_.size()) throw Error(ErrorCode::kInternal, "an archive ends early");
    if (size != 0) std::memcpy(data, bytes_.data(), size);
    bytes_ = bytes_.subspan(size);
  }
  std::span<const std::byte> bytes_;
};

template <typename Archive>
void serialize(Archive& archive, Problem& problem) {
  archive(problem.code, problem.message, problem.path, problem.line, problem.tensor);
}

template <typename T>
std::vector<std::byte> to_archive(const T& value) {
  ArchiveWriter writer;
  writer(const_cast<T&>(value));
  return writer.take();
}

template <typename T>
T from_archive(std::span<const std::byte> bytes) {
  T value{};
  ArchiveReader reader(bytes);
  reader(value);
  reader.finish();
  return value;
}

}  // namespace moeweld
