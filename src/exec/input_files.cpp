#include "exec/input_files.h"

#include "moeweld/base/error.h"

namespace moeweld::exec {

namespace {

constexpr std::size_t kOpenFiles = 48;

}  // namespace

std::shared_ptr<InputFile> InputFiles::open(std::uint32_t file) {
  const std::lock_guard lock(mutex_);
  if (const auto found = open_.find(file); found != open_.end()) return found->second;
  if (open_.size() >= kOpenFiles) {
    open_.erase(order_.front());
    order_.pop_front();
  }
  const plan::PlannedInputFile& planned = plan_.input_files[file];
  std::shared_ptr<InputFile> opened = storage_.open_input(planned.path, mode_);
  if (opened->identity() != planned.identity) {
    throw Error(ErrorCode::kInvalidInput,
                "the file changed between planning and reading: it had " + std::to_string(planned.identity.size_bytes) +
                    " bytes, now it has " + std::to_string(opened->identity().size_bytes) +
                    ", or it was written to in between. Run the merge again.",
                planned.path);
  }
  order_.push_back(file);
  return open_.emplace(file, std::move(opened)).first->second;
}

}  // namespace moeweld::exec
