#pragma once
/// Which calls have not returned yet, and whether anything does: what a watchdog looks at. Fed by trace::Span.

#include <cstdint>
#include <string>
#include <vector>

#include "moeweld/base/trace.h"

namespace moeweld::trace {

/// From now on spans are seen here, and count as progress when they end; until stop_watching(). Costs two uncontended locks per span.
void watch();
void stop_watching();

/// Grows whenever a span ends, but for kWait, and with made_progress(). Of all threads, since the program's start.
std::uint64_t num_steps();
/// For long computations without a span of their own. Thread-safe, a relaxed addition.
void made_progress();

struct OpenSpan {
  Kind kind = Kind::kStage;
  std::string name;
  std::string object;  ///< empty: the name says all
  std::string thread;  ///< empty: it has none
  double seconds = 0;  ///< since it began, by the monotonic clock
};

/// Of each thread that is in a span: the innermost, longest first. Thread-safe.
std::vector<OpenSpan> open_spans();

}  // namespace moeweld::trace
