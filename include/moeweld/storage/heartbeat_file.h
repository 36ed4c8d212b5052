#pragma once
/// Signs of life of a job's ranks in one file: each has a place of its own in it, which it overwrites now and then.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moeweld {

/// A page: network file systems keep two hosts' writes apart if they are to different ones.
constexpr std::size_t kHeartbeatBytes = 4096;

struct Heartbeat {
  std::uint64_t number = 0;  ///< this rank's first is 1
  std::uint64_t steps = 0;   ///< grows with what the rank does
  bool waits_for_peers = false;
  std::string place;  ///< "process 4711 on n17"
  std::string doing;  ///< what has not returned, for people
  bool operator==(const Heartbeat&) const = default;
};

/// Exactly kHeartbeatBytes; long texts are cut, line breaks in them become blanks.
std::string heartbeat_text(const Heartbeat& heartbeat);
/// Nothing if there has been none yet, or one is just being written.
std::optional<Heartbeat> parse_heartbeat(std::string_view text);

/// Opens, reads or writes and closes each time, so that network file systems show what others wrote, and nothing is open when it is
/// removed. Past gates and spans: heartbeats are no work.
class HeartbeatFile {
 public:
  explicit HeartbeatFile(std::string path) : path_(std::move(path)) {}

  /// Makes it, with its space. Replaces what is there. Throws Error(kIo) or Error(kNoSpace).
  void create(int num_ranks) const;
  /// Whether it could be written. Does not make the file if it is gone.
  bool write(int rank, const Heartbeat& heartbeat) const noexcept;
  /// Of each rank; nothing at all if the file cannot be read.
  std::vector<std::optional<Heartbeat>> read() const noexcept;
  void remove() const noexcept;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace moeweld
