#include "moeweld/storage/heartbeat_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <utility>

#include "moeweld/base/error.h"
#include "posix_system.h"

namespace moeweld {

namespace {

constexpr std::string_view kSchema = "moeweld.heartbeat/1";
constexpr std::string_view kEnd = "end";
constexpr std::size_t kLongestText = 1500;

std::string one_line(std::string text) {
  std::ranges::replace(text, '\n', ' ');
  std::ranges::replace(text, '\0', ' ');
  if (text.size() > kLongestText) text.resize(kLongestText);
  return text;
}

/// The next line, without its end; nothing if there is no end.
std::optional<std::string_view> take_line(std::string_view& text) {
  const std::size_t end = text.find('\n');
  if (end == std::string_view::npos) return std::nullopt;
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end + 1);
  return line;
}

std::optional<std::uint64_t> take_number(std::string_view& text) {
  const std::optional<std::string_view> line = take_line(text);
  if (!line) return std::nullopt;
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(line->data(), line->data() + line->size(), number);
  if (error != std::errc() || end != line->data() + line->size()) return std::nullopt;
  return number;
}

}  // namespace

std::string heartbeat_text(const Heartbeat& heartbeat) {
  std::string text = std::string(kSchema) + "\n" + std::to_string(heartbeat.number) + "\n" + std::to_string(heartbeat.steps) + "\n" +
                     (heartbeat.waits_for_peers ? "1" : "0") + "\n" + one_line(heartbeat.place) + "\n" + one_line(heartbeat.doing) + "\n" +
                     std::string(kEnd) + "\n";
  text.resize(kHeartbeatBytes, '\0');
  return text;
}

std::optional<Heartbeat> parse_heartbeat(std::string_view text) {
  if (take_line(text) != kSchema) return std::nullopt;
  const std::optional<std::uint64_t> number = take_number(text);
  const std::optional<std::uint64_t> steps = take_number(text);
  const std::optional<std::uint64_t> waits = take_number(text);
  const std::optional<std::string_view> place = take_line(text);
  const std::optional<std::string_view> doing = take_line(text);
  if (!number || !steps || !waits || !place || !doing || take_line(text) != kEnd) return std::nullopt;
  return Heartbeat{*number, *steps, *waits != 0, std::string(*place), std::string(*doing)};
}

void HeartbeatFile::create(int num_ranks) const {
  posix::Descriptor descriptor = posix::try_open(path_, O_WRONLY | O_CREAT | O_TRUNC);
  if (!descriptor.is_open()) posix::throw_system_error(errno, "create", path_);
  // Written, not reserved: a heartbeat must not fail on a disk that fills up while the job runs.
  const std::string nothing(kHeartbeatBytes, '\0');
  for (int rank = 0; rank < num_ranks; ++rank) {
    const ssize_t count = ::pwrite(descriptor.get(), nothing.data(), nothing.size(), static_cast<off_t>(rank) * kHeartbeatBytes);
    if (count != static_cast<ssize_t>(nothing.size())) {
      const int error = count < 0 ? errno : ENOSPC;
      remove();
      posix::throw_system_error(error, "write", path_);
    }
  }
  descriptor.close(path_);
}

bool HeartbeatFile::write(int rank, const Heartbeat& heartbeat) const noexcept try {
  posix::Descriptor descriptor = posix::try_open(path_, O_WRONLY);
  if (!descriptor.is_open()) return false;
  const std::string text = heartbeat_text(heartbeat);
  if (::pwrite(descriptor.get(), text.data(), text.size(), static_cast<off_t>(rank) * kHeartbeatBytes) != static_cast<ssize_t>(text.size()))
    return false;
  descriptor.close(path_);
  return true;
} catch (...) {
  return false;
}

std::vector<std::optional<Heartbeat>> HeartbeatFile::read() const noexcept try {
  const posix::Descriptor descriptor = posix::try_open(path_, O_RDONLY);
  if (!descriptor.is_open()) return {};
  std::vector<std::optional<Heartbeat>> result;
  std::string page(kHeartbeatBytes, '\0');
  while (::pread(descriptor.get(), page.data(), page.size(), static_cast<off_t>(result.size()) * kHeartbeatBytes) ==
         static_cast<ssize_t>(page.size())) {
    result.push_back(parse_heartbeat(page));
  }
  return result;
} catch (...) {
  return {};
}

void HeartbeatFile::remove() const noexcept { static_cast<void>(::unlink(path_.c_str())); }

}  // namespace moeweld
