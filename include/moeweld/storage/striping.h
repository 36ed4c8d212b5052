#pragma once
/// Lustre: over how many targets the files of a directory are spread.

#include <cstdint>
#include <string>

#include "moeweld/storage/storage.h"

namespace moeweld {

struct Striping {
  int count = 1;
  std::uint64_t size_bytes = 0;
};

/// For files of up to `largest_file_bytes` that up to `most_writers` ranks write at once: a target per writer and at least one per 8 GiB,
/// up to 64; one for files below 1 GiB. Stripes of 16 MiB, so that ranks, which meet at whole MiB, rarely share one.
Striping choose_striping(std::uint64_t largest_file_bytes, int most_writers);

/// Where `directory` is on Lustre, gives what will be created in it this striping, through the program `lfs`. Returns why
/// not, for the user; empty where it was done and on other file systems. Never fails: a file system that says no stripes as it likes.
std::string set_striping(Storage& storage, const std::string& directory, const Striping& striping);

}  // namespace moeweld
