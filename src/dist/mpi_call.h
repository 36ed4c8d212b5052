#pragma once
/// The one place where MPI's return codes become errors and where counts are cut to what MPI can count.

#include <mpi.h>

#include <cstddef>
#include <string>

#include "moeweld/base/error.h"

namespace moeweld::dist {

/// Open MPI 4.1 counts in int: longer messages are cut into pieces of this size.
constexpr std::size_t kMessageBytes = std::size_t{1} << 30;

/// Throws Error(kPeerFailed) with MPI's own words if `code` is not MPI_SUCCESS.
inline void check_mpi(int code, const char* what) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw Error(ErrorCode::kPeerFailed, std::string(what) + " failed: " + std::string(text, static_cast<std::size_t>(length)));
}

}  // namespace moeweld::dist
