#pragma once
/// The open spans of each thread, for trace.cpp.

#include <string>

namespace moeweld::trace {

/// What open_spans() calls this thread.
void name_thread_spans(const std::string& name);

}  // namespace moeweld::trace
