#pragma once
/// Which of its kernels OpenBLAS runs. Results of a matrix product depend on it in the last bits, so all ranks must run the same, and the
/// manifest records it.

#include <cstdint>
#include <string>
#include <string_view>

#include "moeweld/base/peers.h"

namespace moeweld::infer {

/// "SkylakeX", "Haswell", …
std::string blas_core();

/// The vector instructions that set OpenBLAS's x86 cores apart.
enum class VectorLevel : std::uint8_t { kOld, kAvx, kAvx2, kAvx512 };

/// Of the processor that this runs on; kOld on processors that are no x86-64.
VectorLevel processor_vector_level();

/// The core that OPENBLAS_CORETYPE should name because OpenBLAS, older than the processor, chose the core `chosen` with fewer vector
/// instructions than are `possible`; empty where its choice is good.
std::string better_blas_core(std::string_view chosen, VectorLevel possible);

/// Error(kPeerFailed), the same on every rank, that says which ranks run what and what to set, unless `mine`, this rank's blas_core(), is
/// that of all. Collective.
void agree_on_blas_core(Peers& peers, std::string_view mine);

}  // namespace moeweld::infer
