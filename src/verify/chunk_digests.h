#pragma once
/// Digests of a run of the 1 MiB chunks of several files, read by several threads.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "moeweld/base/digest.h"
#include "moeweld/base/error.h"
#include "moeweld/storage/storage.h"

namespace moeweld::verify {

struct ChunkedFile {
  std::string path;
  std::uint64_t size_bytes = 0;
  std::uint64_t first_chunk = 0;  ///< number of its first chunk when those of all files are counted through

  std::uint64_t num_chunks() const { return (size_bytes + kDigestChunkBytes - 1) / kDigestChunkBytes; }
};

struct ChunkDigests {
  std::vector<Digest> digests;  ///< of chunks [begin, end); those of a file that could not be read are zero
  std::uint64_t read_bytes = 0;
  ProblemList problems;  ///< at most one per file
};

/// `files` in the order of first_chunk. `progress` is called from this thread a few times a second with the bytes read so far; what it
/// throws stops the threads and is passed on.
ChunkDigests digest_chunks(Storage& storage, const std::vector<ChunkedFile>& files, std::uint64_t begin, std::uint64_t end, int threads,
                           const std::function<void(std::uint64_t)>& progress);

}  // namespace moeweld::verify
