#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "dist/communicator.h"
#include "dist/mpi_call.h"
#include "moeweld/base/checked.h"
#include "moeweld/base/trace.h"
#include "moeweld/dist/output_writers.h"
#include "moeweld/storage/write_behind.h"

namespace moeweld::dist {

namespace {

/// MPI-IO fails with codes of its own, and what fails is the file.
void check_file(int code, const char* what, const std::string& path) {
  if (code == MPI_SUCCESS) return;
  int error_class = MPI_ERR_IO;
  MPI_Error_class(code, &error_class);
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  const bool full = error_class == MPI_ERR_NO_SPACE || error_class == MPI_ERR_QUOTA;
  throw Error(full ? ErrorCode::kNoSpace : ErrorCode::kIo,
              std::string("cannot write through MPI-IO: ") + what + " failed: " + std::string(text, static_cast<std::size_t>(length)),
              path);
}

class Hints {
 public:
  Hints() { check_mpi(MPI_Info_create(&info_), "MPI_Info_create"); }
  ~Hints() { MPI_Info_free(&info_); }
  Hints(const Hints&) = delete;
  Hints& operator=(const Hints&) = delete;
  void set(const char* key, const std::string& value) { check_mpi(MPI_Info_set(info_, key, value.c_str()), "MPI_Info_set"); }
  MPI_Info get() const { return info_; }

 private:
  MPI_Info info_ = MPI_INFO_NULL;
};

class MpiIoWriter final : public exec::RoundWriter {
 public:
  MpiIoWriter(Peers& peers, MPI_Comm world) : RoundWriter(peers) {
    const trace::Span span(trace::Kind::kPeers, "MPI_Comm_dup");
    check_mpi(MPI_Comm_dup(world, world_.address()), "MPI_Comm_dup");
    check_mpi(MPI_Comm_set_errhandler(world_.get(), MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check_mpi(MPI_Comm_split_type(world_.get(), MPI_COMM_TYPE_SHARED, peers.rank(), MPI_INFO_NULL, node_.address()), "MPI_Comm_split_type");
    check_mpi(MPI_Comm_rank(node_.get(), &rank_on_node_), "MPI_Comm_rank");
    std::uint64_t first_of_node = rank_on_node_ == 0 ? 1 : 0;
    peers.sum({&first_of_node, 1});
    num_nodes_ = checked_cast<int>(first_of_node);
  }
  ~MpiIoWriter() override = default;

  /// Files are opened here, one after the other, by the ranks that share each: in one order, so no two wait for each other.
  void open(const std::string& directory, const plan::MergePlan& plan, const plan::Schedule& schedule) override {
    std::map<std::uint32_t, std::set<int>> members;
    for (std::size_t rank = 0; rank < schedule.runs.size(); ++rank) {
      for (const plan::FileRun& run : schedule.runs[rank]) {
        members[run.file].insert(static_cast<int>(rank));
        left_[run.file] += run.end - run.begin;
      }
    }
    for (auto& [file, ranks] : members) {
      if (ranks.contains(peers().rank())) shared_[file] = {ranks.begin(), ranks.end()};
    }
    directory_ = directory;
    plan_ = &plan;
  }

  void close() override {
    agree_on(peers(), [&] {
      ProblemList problems;
      for (auto& [index, file] : files_) close_file(file, problems);
      files_.clear();
      problems.throw_if_any();
    });
  }

  void abandon() noexcept override {
    // Closing is collective over a file's ranks, all of which come here; in the order in which all have them.
    const trace::Span span(trace::Kind::kSharedWrite, "MPI_File_close");
    for (auto& [index, file] : files_) {
      for (Place& place : file.places) {
        if (place.handle != MPI_FILE_NULL) MPI_File_close(&place.handle);
      }
    }
    files_.clear();
  }

 private:
  struct Place {
    std::string path;
    MPI_File handle = MPI_FILE_NULL;
    WriteBehind behind{};
  };
  struct File {
    Communicator ranks;
    std::vector<Place> places;  ///< the file and its copies
  };

  void write_round(std::span<const Part> parts, const exec::OutputPiece* mine) override {
    std::map<std::uint32_t, std::uint64_t> written;
    for (const Part& part : parts) {
      if (part.size_bytes != 0) written[part.file] += part.size_bytes;
    }
    ProblemList problems;
    for (const auto& [index, bytes] : written) {
      left_[index] -= bytes;
      if (!shared_.contains(index)) continue;
      File& file = files_[index];
      if (file.places.empty()) problems.attempt([&] { open_file(index, file); });
      // All places, whatever becomes of one: the other ranks come to each of them.
      for (const Place& place : file.places) {
        if (place.handle == MPI_FILE_NULL) continue;  // why, open_file has said
        problems.attempt([&] { write_place(place, mine != nullptr && mine->file == index ? mine : nullptr); });
        // Which rank of a node has written what is the library's affair: one of them asks for all.
        if (rank_on_node_ == 0) place.behind.start(0, 0);
      }
      if (left_[index] != 0) continue;
      close_file(file, problems);
      files_.erase(index);
    }
    problems.throw_if_any();
  }

  /// Collective over the file's ranks, also those that have nothing to write in this round.
  static void write_place(const Place& place, const exec::OutputPiece* mine) {
    const std::uint64_t size = mine == nullptr ? 0 : mine->bytes.size();
    const trace::Span span(trace::Kind::kSharedWrite, "MPI-IO round", size, place.path);
    MPI_Status status;
    check_file(MPI_File_write_at_all(place.handle, mine == nullptr ? 0 : checked_cast<MPI_Offset>(mine->offset),
                                     mine == nullptr ? nullptr : mine->bytes.data(), checked_cast<int>(size), MPI_BYTE, &status),
               "MPI_File_write_at_all", place.path);
    int count = 0;
    check_mpi(MPI_Get_count(&status, MPI_BYTE, &count), "MPI_Get_count");
    if (size != 0 && static_cast<std::uint64_t>(count) != size) {
      throw Error(ErrorCode::kNoSpace, "MPI-IO wrote " + std::to_string(count) + " of " + std::to_string(size) + " bytes", place.path);
    }
  }

  /// A place that cannot be opened is left in the list, closed.
  void open_file(std::uint32_t index, File& file) {
    const plan::PlannedOutputFile& planned = plan_->output_files[index];
    file.places.push_back({directory_ + "/" + planned.name});
    for (const std::string& copy : planned.copies) file.places.push_back({directory_ + "/" + copy});
    const trace::Span span(trace::Kind::kSharedWrite, "MPI_File_open", 0, planned.name);
    const std::vector<int>& ranks = shared_.at(index);
    MPI_Group all = MPI_GROUP_NULL;
    MPI_Group some = MPI_GROUP_NULL;
    check_mpi(MPI_Comm_group(world_.get(), &all), "MPI_Comm_group");
    check_mpi(MPI_Group_incl(all, checked_cast<int>(ranks.size()), ranks.data(), &some), "MPI_Group_incl");
    const int code = MPI_Comm_create_group(world_.get(), some, checked_cast<int>(index % 32768), file.ranks.address());
    MPI_Group_free(&some);
    MPI_Group_free(&all);
    check_mpi(code, "MPI_Comm_create_group");
    Hints hints;
    // One aggregator per node that may take part, as ROMIO and OMPIO name it; the striping is that of the directory, and said again for
    // file systems that take it from the hints.
    hints.set("cb_nodes", std::to_string(std::min<int>(num_nodes_, checked_cast<int>(ranks.size()))));
    hints.set("romio_cb_write", "automatic");
    hints.set("striping_unit", std::to_string(16 * kMiB));
    ProblemList problems;
    for (Place& place : file.places) {
      problems.attempt([&] {
        check_file(MPI_File_open(file.ranks.get(), place.path.c_str(), MPI_MODE_WRONLY, hints.get(), &place.handle), "MPI_File_open",
                   place.path);
        place.behind = WriteBehind(place.path);
      });
    }
    problems.throw_if_any();
  }

  static void close_file(File& file, ProblemList& problems) {
    for (Place& place : file.places) {
      if (place.handle == MPI_FILE_NULL) continue;
      const trace::Span span(trace::Kind::kSharedWrite, "MPI_File_sync", 0, place.path);
      const int synced = MPI_File_sync(place.handle);
      const int closed = MPI_File_close(&place.handle);
      problems.attempt([&] { check_file(synced, "MPI_File_sync", place.path); });
      problems.attempt([&] { check_file(closed, "MPI_File_close", place.path); });
    }
  }

  Communicator world_;
  Communicator node_;
  int rank_on_node_ = 0;
  int num_nodes_ = 1;
  std::string directory_;
  const plan::MergePlan* plan_ = nullptr;
  std::map<std::uint32_t, std::vector<int>> shared_;  // files of which this rank has a share: ranks that do, ascending
  std::map<std::uint32_t, std::uint64_t> left_;       // bytes of each file that no round has had yet
  std::map<std::uint32_t, File> files_;
};

}  // namespace

std::unique_ptr<exec::OutputWriter> make_mpiio_writer(Peers& peers, const void* mpi_comm) {
  return std::make_unique<MpiIoWriter>(peers, mpi_comm == nullptr ? MPI_COMM_WORLD : *static_cast<const MPI_Comm*>(mpi_comm));
}

}  // namespace moeweld::dist
