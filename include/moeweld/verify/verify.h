#pragma once
/// Reopens an output and checks it: every byte against the manifest, every header against the index.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "moeweld/base/peers.h"
#include "moeweld/storage/storage.h"

namespace moeweld::verify {

struct VerifyReport {
  std::uint64_t num_files = 0;
  std::uint64_t num_tensors = 0;
  std::uint64_t read_bytes = 0;
  double seconds = 0;
};

/// Divides the files' chunks over the ranks. A directory of several models (extract --all) is all of them. Every file of the manifest must
/// be there with its size and digest; headers and index must agree; no safetensors file may be there that the manifest does not name.
/// Collective. Throws Error(kVerifyFailed) listing every file that differs, kInvalidInput when there is no manifest.
VerifyReport verify(Peers& peers, Storage& storage, const std::string& directory, int threads,
                    const std::function<void(std::uint64_t)>& progress);

}  // namespace moeweld::verify
