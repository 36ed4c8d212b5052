#include "exec/finished_chunks.h"

#include <algorithm>
#include <string>

#include "moeweld/base/error.h"

namespace moeweld::exec {

namespace {

std::uint64_t num_chunks(std::uint64_t size_bytes) {
  return size_bytes / kDigestChunkBytes + (size_bytes % kDigestChunkBytes != 0 ? 1 : 0);
}

}  // namespace

FinishedChunks::FinishedChunks(std::span<const std::uint64_t> file_sizes) {
  for (const std::uint64_t size_bytes : file_sizes) {
    files_.push_back({size_bytes, std::vector<bool>(num_chunks(size_bytes)), std::vector<Digest>(num_chunks(size_bytes))});
  }
}

void FinishedChunks::add(const RunDigests& run) {
  const auto refuse = [&](const std::string& why) {
    throw Error(ErrorCode::kInvalidInput, "bytes " + std::to_string(run.run.begin) + " to " + std::to_string(run.run.end) +
                                              " of output file " + std::to_string(run.run.file) + " are said to be finished, but " + why);
  };
  if (run.run.file >= files_.size()) refuse("there are only " + std::to_string(files_.size()) + " files");
  File& file = files_[run.run.file];
  if (run.run.begin >= run.run.end || run.run.end > file.size_bytes) refuse("the file has " + std::to_string(file.size_bytes) + " bytes");
  if (run.run.begin % kDigestChunkBytes != 0 || (run.run.end % kDigestChunkBytes != 0 && run.run.end != file.size_bytes)) {
    refuse("that is not a run of whole chunks");
  }
  const std::uint64_t first = run.run.begin / kDigestChunkBytes;
  if (run.digests.size() != num_chunks(run.run.end) - first) refuse("there are " + std::to_string(run.digests.size()) + " digests");
  for (std::uint64_t i = 0; i < run.digests.size(); ++i) {
    if (file.is_finished[first + i] && file.digests[first + i] != run.digests[i]) refuse("chunks of them have been other bytes before");
  }
  std::copy(run.digests.begin(), run.digests.end(), file.digests.begin() + static_cast<std::ptrdiff_t>(first));
  std::fill_n(file.is_finished.begin() + static_cast<std::ptrdiff_t>(first), run.digests.size(), true);
}

template <class Work>
void FinishedChunks::for_each_run(const File& file, bool finished, Work&& work) {
  const auto begin = file.is_finished.begin();
  const auto end = file.is_finished.end();
  for (auto first = std::find(begin, end, finished); first != end;) {
    const auto last = std::find(first, end, !finished);
    work(static_cast<std::uint64_t>(first - begin), static_cast<std::uint64_t>(last - begin));
    first = std::find(last, end, finished);
  }
}

plan::FileRun FinishedChunks::run_of(std::uint32_t index, const File& file, std::uint64_t first_chunk, std::uint64_t end_chunk) {
  return {index, first_chunk * kDigestChunkBytes, std::min(end_chunk * kDigestChunkBytes, file.size_bytes)};
}

std::vector<plan::FileRun> FinishedChunks::remaining() const {
  std::vector<plan::FileRun> result;
  for (std::uint32_t index = 0; index < files_.size(); ++index) {
    const File& file = files_[index];
    for_each_run(file, false, [&](std::uint64_t first, std::uint64_t end) { result.push_back(run_of(index, file, first, end)); });
  }
  return result;
}

std::vector<RunDigests> FinishedChunks::finished() const {
  std::vector<RunDigests> result;
  for (std::uint32_t index = 0; index < files_.size(); ++index) {
    const File& file = files_[index];
    for_each_run(file, true, [&](std::uint64_t first, std::uint64_t end) {
      const auto digests = file.digests.begin();
      result.push_back(
          {run_of(index, file, first, end), {digests + static_cast<std::ptrdiff_t>(first), digests + static_cast<std::ptrdiff_t>(end)}});
    });
  }
  return result;
}

std::uint64_t FinishedChunks::finished_bytes() const {
  std::uint64_t sum = 0;
  for (const RunDigests& run : finished()) sum += run.run.end - run.run.begin;
  return sum;
}

bool FinishedChunks::is_empty(std::uint32_t file) const {
  const std::vector<bool>& is_finished = files_.at(file).is_finished;
  return std::find(is_finished.begin(), is_finished.end(), true) == is_finished.end();
}

}  // namespace moeweld::exec
