#include "exec/unchanged_inputs.h"

#include "moeweld/base/error.h"

namespace moeweld::exec {

void require_unchanged_inputs(Storage& storage, const plan::MergePlan& plan, const std::string& since) {
  ProblemList problems;
  for (const plan::PlannedInputFile& file : plan.input_files) {
    const auto identity = storage.identity(file.path);
    if (!identity) {
      problems.add(Problem{ErrorCode::kInvalidInput, "the file was there when " + since + " and is not any more", file.path});
    } else if (*identity != file.identity) {
      problems.add(Problem{ErrorCode::kInvalidInput,
                           "the file changed since " + since + ": it had " + std::to_string(file.identity.size_bytes) +
                               " bytes, now it has " + std::to_string(identity->size_bytes) + ", or it was written to in between",
                           file.path});
    }
  }
  problems.throw_if_any();
}

}  // namespace moeweld::exec
