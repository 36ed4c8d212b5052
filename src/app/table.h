#pragma once
/// Aligned columns for people.

#include <string>
#include <vector>

namespace moeweld::app {

/// Each row's cells padded to their column's width, two spaces between columns, none at the end of a line.
std::string aligned(const std::vector<std::vector<std::string>>& rows, const std::string& indent = {});

}  // namespace moeweld::app
