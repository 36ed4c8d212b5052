// The least that a merge can do: reads the given files once (or several times) and writes as many bytes as asked for, with plain threads
// and nothing in between. Without --read, --write and --threads every combination is tried and the best is reported.
//   copy_floor --out FILE --write-bytes N [--passes 2] INPUT...
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "moeweld/storage/storage.h"

namespace {

constexpr std::uint64_t kChunkBytes = std::uint64_t{4} << 20;

struct Options {
  std::vector<std::string> inputs;
  std::string out;
  std::uint64_t write_bytes = 0;
  int passes = 1;
  std::string read_mode;
  std::string write_mode;
  int threads = 0;
};

struct Mode {
  bool direct_read = false;
  bool direct_write = false;
  int threads = 1;
};

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what + ": " + std::strerror(errno)); }

class File {
 public:
  File(const std::string& path, int flags) : path_(path), descriptor_(::open(path.c_str(), flags, 0644)) {
    if (descriptor_ < 0) fail(path);
  }
  ~File() { ::close(descriptor_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int descriptor() const { return descriptor_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int descriptor_;
};

std::uint64_t file_size(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) fail(path);
  return static_cast<std::uint64_t>(status.st_size);
}

std::uint64_t aligned(std::uint64_t size) {
  return (size + moeweld::kDirectAlignment - 1) / moeweld::kDirectAlignment * moeweld::kDirectAlignment;
}

struct Piece {
  std::size_t file = 0;  // of the inputs; the output where it is their number
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
};

/// Reads and writes in the proportion in which they occur, as a merge would: every input forward, the output forward.
std::vector<Piece> pieces(const Options& options) {
  std::vector<std::vector<Piece>> streams;
  const auto cut = [](std::size_t file, std::uint64_t size) {
    std::vector<Piece> stream;
    for (std::uint64_t offset = 0; offset < size; offset += kChunkBytes)
      stream.push_back({file, offset, std::min(kChunkBytes, size - offset)});
    return stream;
  };
  std::vector<Piece> all;
  for (int pass = 1; pass < options.passes; ++pass) {
    for (std::size_t i = 0; i < options.inputs.size(); ++i) {
      for (const Piece& piece : cut(i, file_size(options.inputs[i]))) all.push_back(piece);
    }
  }
  for (std::size_t i = 0; i < options.inputs.size(); ++i) streams.push_back(cut(i, file_size(options.inputs[i])));
  streams.push_back(cut(options.inputs.size(), options.write_bytes));
  std::size_t longest = 0;
  for (const auto& stream : streams) longest = std::max(longest, stream.size());
  std::vector<std::size_t> next(streams.size(), 0);
  for (std::size_t step = 1; step <= longest; ++step) {
    for (std::size_t s = 0; s < streams.size(); ++s) {
      for (const std::size_t end = streams[s].size() * step / longest; next[s] < end; ++next[s]) all.push_back(streams[s][next[s]]);
    }
  }
  return all;
}

void work(const std::vector<Piece>& all, std::atomic<std::size_t>& next, const std::vector<std::unique_ptr<File>>& inputs,
          const File& output, bool direct_write) {
  moeweld::AlignedBuffer input(kChunkBytes);
  moeweld::AlignedBuffer result(kChunkBytes);
  std::memset(result.data(), 1, result.size());
  for (std::size_t i = next++; i < all.size(); i = next++) {
    const Piece& piece = all[i];
    const bool writes = piece.file == inputs.size();
    const File& file = writes ? output : *inputs[piece.file];
    std::uint64_t done = 0;
    // Direct transfers are whole blocks; the file is cut to its size afterwards.
    const std::uint64_t wanted = writes && direct_write ? aligned(piece.size) : piece.size;
    while (done < wanted) {
      const auto offset = static_cast<off_t>(piece.offset + done);
      const ssize_t moved = writes ? ::pwrite(file.descriptor(), result.data() + done, wanted - done, offset)
                                   : ::pread(file.descriptor(), input.data() + done, kChunkBytes - done, offset);
      if (moved < 0 && errno != EINTR) fail(file.path());
      if (moved == 0) throw std::runtime_error(file.path() + " ends early");
      if (moved > 0) done += static_cast<std::uint64_t>(moved);
    }
  }
}

double seconds_of(const Options& options, const Mode& mode, const std::vector<Piece>& all) {
  ::unlink(options.out.c_str());
  const auto start = std::chrono::steady_clock::now();
  {
    std::vector<std::unique_ptr<File>> inputs;
    for (const std::string& path : options.inputs)
      inputs.push_back(std::make_unique<File>(path, O_RDONLY | (mode.direct_read ? O_DIRECT : 0)));
    const File output(options.out, O_RDWR | O_CREAT | (mode.direct_write ? O_DIRECT : 0));
    if (options.write_bytes > 0 && ::fallocate(output.descriptor(), 0, 0, static_cast<off_t>(aligned(options.write_bytes))) != 0 &&
        errno != EOPNOTSUPP)
      fail(options.out);
    std::atomic<std::size_t> next{0};
    std::vector<std::thread> threads;
    std::vector<std::exception_ptr> errors(static_cast<std::size_t>(mode.threads));
    for (std::size_t t = 0; t < errors.size(); ++t) {
      threads.emplace_back([&, t] {
        try {
          work(all, next, inputs, output, mode.direct_write);
        } catch (...) {
          errors[t] = std::current_exception();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const std::exception_ptr& error : errors) {
      if (error) std::rethrow_exception(error);
    }
    if (::ftruncate(output.descriptor(), static_cast<off_t>(options.write_bytes)) != 0) fail(options.out);
    // A merge's output is on stable storage when it appears; so is this.
    if (::fdatasync(output.descriptor()) != 0) fail(options.out);
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  ::unlink(options.out.c_str());
  ::sync();
  return seconds;
}

std::vector<Mode> modes(const Options& options) {
  std::vector<Mode> result;
  const auto choices = [](const std::string& mode) {
    return mode.empty() ? std::vector<bool>{false, true} : std::vector<bool>{mode == "direct"};
  };
  for (const bool read : choices(options.read_mode)) {
    for (const bool write : choices(options.write_mode)) {
      for (const int threads : options.threads > 0 ? std::vector<int>{options.threads} : std::vector<int>{2, 4, 8})
        result.push_back({read, write, threads});
    }
  }
  return result;
}

}  // namespace

int main(int argc, char** argv) try {
  Options options;
  CLI::App app("Measures how fast the same bytes can be read and written");
  app.add_option("inputs", options.inputs, "Files to read")->required();
  app.add_option("--out", options.out, "File to write; removed afterwards")->required();
  app.add_option("--write-bytes", options.write_bytes)->required();
  app.add_option("--passes", options.passes, "How often the inputs are read")->check(CLI::Range(1, 4));
  app.add_option("--read", options.read_mode)->check(CLI::IsMember({"buffered", "direct"}));
  app.add_option("--write", options.write_mode)->check(CLI::IsMember({"buffered", "direct"}));
  app.add_option("--threads", options.threads)->check(CLI::Range(1, 256));
  CLI11_PARSE(app, argc, argv);
  const std::vector<Piece> all = pieces(options);
  for (const Mode& mode : modes(options)) {
    std::cout << "{\"read\": \"" << (mode.direct_read ? "direct" : "buffered") << "\", \"write\": \""
              << (mode.direct_write ? "direct" : "buffered") << "\", \"threads\": " << mode.threads
              << ", \"seconds\": " << seconds_of(options, mode, all) << "}" << std::endl;
  }
  return 0;
} catch (const std::exception& error) {
  std::cerr << "copy_floor: " << error.what() << "\n";
  return 1;
}
