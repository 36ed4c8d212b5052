#pragma once
/// An all-gather that carries failures: a rank whose part fails does not leave the others waiting.

#include <functional>
#include <vector>

#include "moeweld/base/archive.h"
#include "moeweld/base/peers.h"

namespace moeweld::exec {

/// Runs `produce` on every rank and gathers what it returned, in rank order. If it threw on any rank, every rank throws the same Error.
/// Collective; `produce` must not call collectives.
std::vector<std::vector<std::byte>> exchange(Peers& peers, const std::function<std::vector<std::byte>()>& produce);

}  // namespace moeweld::exec
