#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>

#include "app/interruption.h"
#include "app/run.h"
#include "moeweld/config/model_reference.h"
#include "moeweld/formats/model_locator.h"
#include "moeweld/tokenizer/tokenizer.h"

namespace moeweld::app {

namespace {

constexpr std::size_t kFlushBytes = 1 << 20;

void append_list(std::string& out, const std::vector<std::int64_t>& ids) {
  out += '[';
  for (std::size_t i = 0; i < ids.size(); ++i) fmt::format_to(std::back_inserter(out), "{}{}", i == 0 ? "" : ", ", ids[i]);
  out += "]\n";
}

void print(std::string& out) {
  if (std::fwrite(out.data(), 1, out.size(), stdout) != out.size())
    throw Error(ErrorCode::kIo, "the ids cannot be written to standard output");
  out.clear();
}

/// One list for each line; lines end at \n only, which is no part of them. What was done before a bad line is printed.
void tokenize_lines(const tokenizer::Tokenizer& tokenizer, std::istream& input, const std::string& path, bool bos) {
  std::string line, out;
  int number = 0;
  while (std::getline(input, line)) {
    ++number;
    try {
      append_list(out, bos ? tokenizer.encode_with_bos(line) : tokenizer.encode(line));
    } catch (const Error& error) {
      print(out);
      throw Error(Problem{error.code(), error.problems().front().message, path, number, {}});
    }
    if (out.size() >= kFlushBytes) {
      stop_if_interrupted();
      print(out);
    }
  }
  print(out);
  std::fflush(stdout);
  if (input.bad()) throw Error(ErrorCode::kIo, "reading failed", path);
}

}  // namespace

int run_tokenize(Storage& storage, const Options& options) {
  const config::ModelReference reference = config::parse_model_reference(options.input);
  const std::string directory = formats::locate_model(storage, hub_cache(options), reference.path, reference.revision);
  const auto tokenizer = tokenizer::load_tokenizer(storage, directory);
  if (options.text_file.empty()) {
    std::ios::sync_with_stdio(false);
    tokenize_lines(*tokenizer, std::cin, "standard input", options.bos);
    return 0;
  }
  if (!storage.exists(options.text_file)) throw Error(ErrorCode::kInvalidInput, "there is no such text file", options.text_file);
  std::ifstream file(options.text_file, std::ios::binary);
  if (!file) throw Error(ErrorCode::kIo, "the text file cannot be opened", options.text_file);
  tokenize_lines(*tokenizer, file, options.text_file, options.bos);
  return 0;
}

}  // namespace moeweld::app
