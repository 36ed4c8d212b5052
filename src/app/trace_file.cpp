#include "app/trace_file.h"

#include "moeweld/base/archive.h"
#include "moeweld/base/trace.h"

namespace moeweld::app {

namespace {

constexpr int kSchemaVersion = 1;

/// What one rank adds.
struct Part {
  std::string events;
  std::uint64_t num_dropped = 0;
};
template <class Archive>
void serialize(Archive& archive, Part& value) {
  archive(value.events, value.num_dropped);
}

}  // namespace

TraceFile::TraceFile(Peers& peers, const std::string& path) : peers_(peers), path_(path) {
  if (path_.empty()) return;
  agree_on(peers_, [&] {
    if (peers_.rank() != 0) return;
    file_.open(path_, std::ios::binary | std::ios::trunc);
    if (!file_) throw Error(ErrorCode::kIo, "cannot open for the trace", path_);
  });
  trace::name_thread("pipeline");
  peers_.barrier();
  trace::start();
}

void TraceFile::finish(bool transport_works) {
  if (path_.empty()) return;
  trace::stop();
  Part mine{trace::events_json(peers_.rank()), trace::num_dropped()};
  std::uint64_t num_dropped = 0;
  if (peers_.rank() == 0) file_ << "{\"traceEvents\":[\n";
  const int num_parts = transport_works ? peers_.size() : 1;
  for (int rank = 0; rank < num_parts; ++rank) {
    // One rank's part at a time, so that rank 0 never holds all.
    std::vector<std::byte> bytes;
    if (rank == peers_.rank()) bytes = to_archive(mine);
    if (transport_works) peers_.broadcast(bytes, rank);
    if (peers_.rank() != 0) continue;
    const Part part = from_archive<Part>(bytes);
    file_ << part.events;
    num_dropped += part.num_dropped;
  }
  if (peers_.rank() != 0) return;
  file_ << "{\"ph\":\"M\",\"name\":\"moeweld\",\"pid\":0,\"tid\":0,\"args\":{}}\n],\"displayTimeUnit\":\"ms\",\"otherData\":{\"schema\":"
           "\"moeweld.trace/"
        << kSchemaVersion << "\",\"version\":\"" << MOEWELD_VERSION << "\",\"ranks\":" << num_parts << ",\"dropped_spans\":" << num_dropped
        << "}}\n";
  file_.close();
  if (!file_) throw Error(ErrorCode::kIo, "cannot write the trace", path_);
}

}  // namespace moeweld::app
