#pragma once
/// What a site's nodes and file system do per second, for estimates of how long a job takes.

#include <cstdint>
#include <map>
#include <string>

namespace moeweld::plan {

struct SiteRates {
  std::string source;  ///< for people: the file and what it says of itself, or that these are stated ones
  std::uint64_t cores_per_node = 1;
  double memory_per_node_bytes = 0;
  double read_bytes_per_second = 0;              ///< of one node
  double write_bytes_per_second = 0;             ///< of one node
  double file_system_bytes_per_second = 0;       ///< ceiling for all nodes, reads and writes together
  double forward_flops_per_second_per_core = 0;  ///< of a forward pass
  double combine_bytes_per_second_per_core = 0;  ///< input bytes, for methods that are not in the map
  std::map<std::string, double> combine_of;      ///< by method
};

/// A modest node of 32 cores, for sites that were not measured.
SiteRates stated_rates();

/// The JSON of bench/measure_site.py (docs/running.md). Throws Error(kInvalidInput) naming `path`, with all that is wrong with it.
SiteRates parse_site_rates(const std::string& text, const std::string& path);

}  // namespace moeweld::plan
