#pragma once
/// What --stats gathered, as one HTML page.

#include <string>

#include "moeweld/hdf5/statistics_file.h"

namespace moeweld::app {

/// Well-formed as XML too; nothing in it is fetched from elsewhere, and nothing in it runs.
std::string statistics_page(const hdf5::StatisticsFile& file);

}  // namespace moeweld::app
