#pragma once
/// What tests over MPI share.

#include <functional>
#include <optional>
#include <string>

#include "moeweld/base/archive.h"
#include "moeweld/base/peers.h"
#include "moeweld/plan/merge_plan.h"
#include "unit/temporary_directory.h"

namespace moeweld {

/// A directory that all ranks see, made and removed by rank 0.
class SharedDirectory {
 public:
  explicit SharedDirectory(Peers& peers) : peers_(peers) {
    if (peers.rank() == 0) directory_.emplace();
    std::vector<std::byte> name;
    if (directory_) name = to_archive(directory_->path());
    peers.broadcast(name, 0);
    path_ = from_archive<std::string>(name);
  }
  ~SharedDirectory() { peers_.barrier(); }
  const std::string& path() const { return path_; }

 private:
  Peers& peers_;
  std::optional<TemporaryDirectory> directory_;
  std::string path_;
};

inline plan::MergePlan broadcast_plan(Peers& peers, const std::function<plan::MergePlan()>& make) {
  std::vector<std::byte> bytes;
  agree_on(peers, [&] {
    if (peers.rank() == 0) bytes = plan::encode(make());
  });
  peers.broadcast(bytes, 0);
  return plan::decode(bytes);
}

}  // namespace moeweld
