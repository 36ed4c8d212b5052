#include "moeweld/verify/diff.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include "moeweld/base/archive.h"
#include "moeweld/base/checked.h"
#include "verify/compare_elements.h"

namespace moeweld {

template <class Archive>
void serialize(Archive& archive, FileIdentity& value) {
  archive(value.size_bytes, value.modified_ns);
}

}  // namespace moeweld

namespace moeweld::verify {

template <class Archive>
void serialize(Archive& archive, DiffSide& value) {
  archive(value.path, value.identity, value.dtype, value.shape, value.begin);
}

template <class Archive>
void serialize(Archive& archive, DiffFigures& value) {
  archive(value.max_difference, value.max_element, value.dot, value.squares_a, value.squares_b, value.different, value.non_finite);
}

template <class Archive>
void serialize(Archive& archive, TensorDiff& value) {
  archive(value.name, value.a, value.b, value.equal, value.figures, value.has_values);
}

template <class Archive>
void serialize(Archive& archive, DiffReport& value) {
  archive(value.tensors, value.only_in_a, value.only_in_b);
}

namespace {

constexpr auto kComparisonInterval = std::chrono::milliseconds(100);
/// What one thread compares at a time and ranks exchange figures of: a whole number of kCompareElements.
constexpr std::uint64_t kSegmentElements = 16 * kCompareElements;

struct Segment {
  std::size_t tensor = 0;
  std::uint64_t first = 0;
  std::uint64_t count = 0;
  std::uint64_t bytes = 0;
};

std::vector<Segment> cut_segments(const DiffReport& report) {
  std::vector<Segment> segments;
  for (std::size_t index = 0; index < report.tensors.size(); ++index) {
    const TensorDiff& tensor = report.tensors[index];
    if (!tensor.figures) continue;
    const std::uint64_t total = num_elements(tensor.a.shape);
    for (std::uint64_t first = 0; first < total; first += kSegmentElements) {
      const std::uint64_t count = std::min(kSegmentElements, total - first);
      segments.push_back({index, first, count, count * (size_bytes(tensor.a.dtype) + size_bytes(tensor.b.dtype))});
    }
  }
  return segments;
}

/// Segments [first, second) of this rank: about as many bytes as every other's.
std::pair<std::size_t, std::size_t> share_of(const std::vector<Segment>& segments, int rank, int size) {
  std::uint64_t total = 0;
  for (const Segment& segment : segments) total += segment.bytes;
  const auto border = [&](int number) {
    const double wanted = static_cast<double>(total) * number / size;
    double sum = 0;
    std::size_t index = 0;
    while (index < segments.size() && sum + static_cast<double>(segments[index].bytes) / 2 < wanted) {
      sum += static_cast<double>(segments[index++].bytes);
    }
    return index;
  };
  return {rank == 0 ? 0 : border(rank), rank + 1 == size ? segments.size() : border(rank + 1)};
}

/// Threads that take segments one after the other.
class ComparePool {
 public:
  ComparePool(Storage& storage, const DiffReport& report, std::span<const Segment> segments)
      : storage_(storage), report_(report), segments_(segments), figures_(segments.size()) {}

  std::vector<DiffFigures> run(int threads, const std::function<void(std::uint64_t)>& progress) {
    running_ = static_cast<int>(std::clamp<std::size_t>(segments_.size(), 1, static_cast<std::size_t>(std::max(threads, 1))));
    std::vector<std::jthread> workers;
    const int num_workers = running_;
    try {
      for (int i = 0; i < num_workers; ++i) workers.emplace_back([this] { work(); });
      std::unique_lock lock(mutex_);
      while (!finished_.wait_for(lock, kComparisonInterval, [this] { return running_ == 0; })) {
        lock.unlock();
        if (progress) progress(read_bytes_);
        lock.lock();
      }
    } catch (...) {
      stop_ = true;
      workers.clear();
      throw;
    }
    workers.clear();
    problems_.throw_if_any();
    if (failure_) std::rethrow_exception(failure_);
    return std::move(figures_);
  }

  std::uint64_t read_bytes() const { return read_bytes_; }

 private:
  using OpenFiles = std::map<std::string, std::unique_ptr<InputFile>>;

  void work() {
    try {
      OpenFiles files;
      AlignedBuffer a(kCompareElements * sizeof(double));
      AlignedBuffer b(kCompareElements * sizeof(double));
      for (std::size_t next = next_++; next < segments_.size() && !stop_; next = next_++) compare(next, files, a, b);
    } catch (const Error& error) {
      const std::lock_guard lock(mutex_);
      problems_.add(error);
      stop_ = true;
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
      stop_ = true;
    }
    const std::lock_guard lock(mutex_);
    --running_;
    finished_.notify_all();
  }

  void compare(std::size_t index, OpenFiles& files, AlignedBuffer& a, AlignedBuffer& b) {
    const Segment& segment = segments_[index];
    const TensorDiff& tensor = report_.tensors[segment.tensor];
    InputFile& file_a = open(tensor.a, files);
    InputFile& file_b = open(tensor.b, files);
    for (std::uint64_t done = 0; done < segment.count && !stop_; done += kCompareElements) {
      const std::uint64_t first = segment.first + done;
      const std::uint64_t count = std::min(kCompareElements, segment.count - done);
      read(file_a, tensor.a, first, count, a);
      read(file_b, tensor.b, first, count, b);
      compare_elements(tensor.a.dtype, a.data(), tensor.b.dtype, b.data(), first, count, figures_[index]);
    }
  }

  void read(InputFile& file, const DiffSide& side, std::uint64_t first, std::uint64_t count, AlignedBuffer& buffer) {
    const std::size_t element_size = size_bytes(side.dtype);
    file.read(side.begin + first * element_size, buffer.span().first(count * element_size));
    read_bytes_ += count * element_size;
  }

  /// At most a few files at once: segments go through the files in order.
  InputFile& open(const DiffSide& side, OpenFiles& files) {
    constexpr std::size_t kMostOpen = 8;
    if (const auto found = files.find(side.path); found != files.end()) return *found->second;
    if (files.size() >= kMostOpen) files.clear();
    std::unique_ptr<InputFile> file = storage_.open_input(side.path, IoMode::kAuto);
    if (file->identity() != side.identity) {
      throw Error(ErrorCode::kInvalidInput,
                  "the file changed while it was compared: its header was read when it had " + std::to_string(side.identity.size_bytes) +
                      " bytes, now it has " + std::to_string(file->identity().size_bytes) + ", or it was written to in between. Try again.",
                  side.path);
    }
    return *files.emplace(side.path, std::move(file)).first->second;
  }

  Storage& storage_;
  const DiffReport& report_;
  const std::span<const Segment> segments_;
  std::vector<DiffFigures> figures_;  // one writer each
  std::atomic<std::size_t> next_ = 0;
  std::atomic<std::uint64_t> read_bytes_ = 0;
  std::atomic<bool> stop_ = false;
  std::mutex mutex_;
  std::condition_variable finished_;
  int running_ = 0;
  ProblemList problems_;
  std::exception_ptr failure_;
};

}  // namespace

bool DiffReport::equal() const {
  return only_in_a.empty() && only_in_b.empty() &&
         std::all_of(tensors.begin(), tensors.end(), [](const TensorDiff& tensor) { return tensor.equal; });
}

DiffReport diff(Peers& peers, Storage& storage, const std::function<DiffReport()>& pair, int threads,
                const std::function<void(std::uint64_t)>& progress) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::byte> bytes;
  agree_on(peers, [&] {
    if (peers.rank() == 0) bytes = to_archive(pair());
  });
  peers.broadcast(bytes, 0);
  auto report = from_archive<DiffReport>(bytes);

  const std::vector<Segment> segments = cut_segments(report);
  const auto [begin, end] = share_of(segments, peers.rank(), peers.size());
  std::vector<std::byte> mine;
  std::uint64_t read_bytes = 0;
  agree_on(peers, [&] {
    ComparePool pool(storage, report, std::span(segments).subspan(begin, end - begin));
    mine = to_archive(pool.run(threads, progress));
    read_bytes = pool.read_bytes();
  });
  std::size_t segment = 0;
  for (const std::vector<std::byte>& part : peers.all_gather(mine)) {
    for (const DiffFigures& figures : from_archive<std::vector<DiffFigures>>(part)) {
      add_figures(figures, *report.tensors.at(segments.at(segment++).tensor).figures);
    }
  }
  if (segment != segments.size()) throw Error(ErrorCode::kInternal, "ranks compared another number of parts than there are");
  for (TensorDiff& tensor : report.tensors) {
    tensor.equal = tensor.figures && tensor.a.dtype == tensor.b.dtype && tensor.figures->different == 0;
  }
  peers.sum({&read_bytes, 1});
  report.read_bytes = read_bytes;
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace moeweld::verify
