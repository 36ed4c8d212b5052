#include "exec/exchange.h"

namespace moeweld::exec {

std::vector<std::vector<std::byte>> exchange(Peers& peers, const std::function<std::vector<std::byte>()>& produce) {
  std::vector<std::byte> mine;
  agree_on(peers, [&] { mine = produce(); });
  return peers.all_gather(mine);
}

}  // namespace moeweld::exec
