#pragma once
/// Which of its kernels OpenBLAS runs. Results of a matrix product depend on it in the last bits, so all ranks must run the same, and the
/// manifest records it.

#include <string>

#include "moeweld/base/peers.h"

namespace moeweld::infer {

/// "SkylakeX", "Haswell", …
std::string blas_core();

/// The core that OPENBLAS_CORETYPE should name because OpenBLAS, older than the processor, chose kernels for fewer vector instructions
/// than the processor has; empty where its choice is good.
std::string better_blas_core();

/// Error(kPeerFailed), the same on every rank, that says which ranks run what and what to set, unless all run the same core. Collective.
void agree_on_blas_core(Peers& peers);

}  // namespace moeweld::infer
