#include <algorithm>

#include "moeweld/base/archive.h"
#include "moeweld/exec/output_writer.h"

namespace moeweld::exec {

bool RoundWriter::round(State state, const OutputPiece* mine) {
  if (!problems_.empty()) state = State::kFailed;
  Part own;
  if (mine != nullptr) own = {mine->file, mine->offset, mine->bytes.size()};
  ArchiveWriter message;
  message(state, own.file, own.offset, own.size_bytes);
  std::vector<Part> parts;
  bool any_failed = false;
  bool any_writing = false;
  for (const std::vector<std::byte>& bytes : peers_.all_gather(message.take())) {
    ArchiveReader reader(bytes);
    State theirs{};
    Part& part = parts.emplace_back();
    reader(theirs, part.file, part.offset, part.size_bytes);
    any_failed = any_failed || theirs == State::kFailed;
    any_writing = any_writing || theirs == State::kWriting;
  }
  if (any_failed) {
    has_ended_ = true;
    agree(peers_, problems_);
  }
  if (!any_writing) return false;
  // What goes wrong here goes wrong on this rank alone; the next round tells the others.
  problems_.attempt([&] { write_round(parts, mine); });
  return true;
}

void RoundWriter::write(const OutputPiece& piece) { round(State::kWriting, &piece); }

void RoundWriter::finish_writing(const ProblemList& problems) {
  for (const Problem& problem : problems.problems()) problems_.add(problem);
  while (!has_ended_ && round(State::kDone, nullptr)) {
  }
}

}  // namespace moeweld::exec
