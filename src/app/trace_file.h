#pragma once
/// --trace FILE: one timeline of all ranks, for chrome://tracing and https://ui.perfetto.dev.

#include <fstream>
#include <string>

#include "moeweld/base/peers.h"

namespace moeweld::app {

class TraceFile {
 public:
  /// Nothing happens without a path. Rank 0 opens the file, and all ranks begin to record at the same moment. Collective; throws the same
  /// Error on every rank.
  TraceFile(Peers& peers, const std::string& path);

  /// Ends the recording and writes the file, rank after rank. Collective, unless the transport is broken: then rank 0 writes its own part
  /// alone.
  void finish(bool transport_works);

 private:
  Peers& peers_;
  const std::string path_;
  std::ofstream file_;  // on rank 0
};

}  // namespace moeweld::app
