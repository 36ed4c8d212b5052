#include "moeweld/verify/verify.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>

#include "moeweld/base/archive.h"
#include "moeweld/base/digest.h"
#include "verify/chunk_digests.h"
#include "verify/directory_check.h"

namespace moeweld::verify {

template <class Archive>
void serialize(Archive& archive, ChunkedFile& file) {
  archive(file.path, file.size_bytes, file.first_chunk);
}

namespace {

constexpr std::string_view kDigestPrefix = "xxh3-128-1MiB:";

struct FileList {
  std::vector<ChunkedFile> files;
  std::vector<std::string> expected_digests;
  std::uint64_t num_chunks = 0;
  std::uint64_t num_tensors = 0;
};

template <class Archive>
void serialize(Archive& archive, FileList& list) {
  archive(list.files, list.expected_digests, list.num_chunks, list.num_tensors);
}

FileList make_list(const DirectoryCheck& check, const std::string& directory) {
  FileList list;
  list.num_tensors = check.num_tensors;
  for (const exec::ManifestFile& file : check.files) {
    list.files.push_back({directory + "/" + file.name, file.size_bytes, list.num_chunks});
    list.expected_digests.push_back(file.digest);
    list.num_chunks += list.files.back().num_chunks();
  }
  return list;
}

std::vector<Digest> gather(Peers& peers, const std::vector<Digest>& mine) {
  std::vector<Digest> all;
  for (const std::vector<std::byte>& bytes : peers.all_gather(std::as_bytes(std::span(mine)))) {
    const std::size_t first = all.size();
    all.resize(first + bytes.size() / sizeof(Digest));
    if (!bytes.empty()) std::memcpy(&all[first], bytes.data(), bytes.size());
  }
  return all;
}

void compare(const FileList& list, const std::vector<Digest>& digests, const std::vector<std::string>& unreadable, ProblemList& problems) {
  for (std::size_t index = 0; index < list.files.size(); ++index) {
    const ChunkedFile& file = list.files[index];
    if (std::find(unreadable.begin(), unreadable.end(), file.path) != unreadable.end()) continue;
    const Digest digest = digest_of_chunks(std::span(digests).subspan(file.first_chunk, file.num_chunks()));
    const std::string found = std::string(kDigestPrefix) + to_hex(digest);
    if (found != list.expected_digests[index]) {
      problems.add({ErrorCode::kVerifyFailed,
                    "does not hold the bytes that were written: its digest is " + found + ", the manifest says " +
                        list.expected_digests[index] + ". The file was changed or damaged; copy it again or merge again.",
                    file.path,
                    0,
                    {}});
    }
  }
}

}  // namespace

VerifyReport verify(Peers& peers, Storage& storage, const std::string& directory, int threads,
                    const std::function<void(std::uint64_t)>& progress) {
  const auto start = std::chrono::steady_clock::now();
  ProblemList problems;
  FileList list;
  agree_on(peers, [&] {
    if (peers.rank() != 0) return;
    DirectoryCheck check = check_directory(storage, directory);
    list = make_list(check, directory);
    problems = std::move(check.problems);
  });
  std::vector<std::byte> message = to_archive(list);
  peers.broadcast(message, 0);
  list = from_archive<FileList>(message);

  const auto rank = static_cast<std::uint64_t>(peers.rank());
  const auto size = static_cast<std::uint64_t>(peers.size());
  const std::uint64_t begin = list.num_chunks / size * rank + std::min(rank, list.num_chunks % size);
  const std::uint64_t end = begin + list.num_chunks / size + (rank < list.num_chunks % size ? 1 : 0);
  ChunkDigests mine;
  agree_on(peers, [&] { mine = digest_chunks(storage, list.files, begin, end, threads, progress); });

  // A file that one rank could not read is reported as that, not as changed.
  std::vector<Problem> read_problems;
  for (const auto& bytes : peers.all_gather(to_archive(mine.problems.problems()))) {
    for (Problem& problem : from_archive<std::vector<Problem>>(bytes)) read_problems.push_back(std::move(problem));
  }
  const std::vector<Digest> digests = gather(peers, mine.digests);
  if (peers.rank() == 0) {
    std::vector<std::string> unreadable;
    for (Problem& problem : read_problems) {
      unreadable.push_back(problem.path);
      if (problem.code == ErrorCode::kInvalidInput) problem.code = ErrorCode::kVerifyFailed;
      problems.add(std::move(problem));
    }
    compare(list, digests, unreadable, problems);
  }
  agree(peers, problems);

  std::array<std::uint64_t, 1> read_bytes = {mine.read_bytes};
  peers.sum(read_bytes);
  VerifyReport report;
  report.num_files = list.files.size();
  report.num_tensors = list.num_tensors;
  report.read_bytes = read_bytes[0];
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace moeweld::verify
