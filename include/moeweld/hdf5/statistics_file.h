#pragma once
/// --stats FILE.h5: docs/stats.md says how it looks.

#include <cstdint>
#include <string>
#include <vector>

#include "moeweld/exec/statistics.h"
#include "moeweld/storage/storage.h"

namespace moeweld::hdf5 {

constexpr const char* kStatisticsFormat = "moeweld.stats/1";

struct StatisticsFile {
  std::string version;      ///< of moeweld
  std::string title;        ///< "ties of 3 models onto llama-7b"
  std::string config;       ///< the YAML; empty where it is too long, or there was none
  std::string plan_digest;  ///< in hex: what the output's bytes depend on
  std::uint64_t seed = 0;
  bool is_resumed = false;          ///< an earlier run had written part of the output: tensors with a part in it are not measured
  std::vector<std::string> models;  ///< as the config names them
  std::vector<exec::TensorStatistics> tensors;
};

/// Under a temporary name, synced, then renamed. The same bytes for the same content. Throws Error(kIo, kNoSpace).
void write_statistics(Storage& storage, const std::string& path, const StatisticsFile& file);

/// The file is not trusted: nothing is followed out of it, and every index and figure is in its range. Throws Error(kInvalidInput) that
/// names what is wrong, kUnsupported for another schema version.
StatisticsFile read_statistics(Storage& storage, const std::string& path);

}  // namespace moeweld::hdf5
