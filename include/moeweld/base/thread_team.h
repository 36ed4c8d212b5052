#pragma once
/// A loop over several threads for short tasks beside threads that read and write: who calls works along, and waits for no thread that has
/// not begun.

#include <cstddef>
#include <functional>

namespace moeweld {

/// Calls work(index, worker) once for every index below `count`, on the calling thread and on up to `num_threads - 1` threads that are kept
/// for it between calls; indices are begun in ascending order. `worker` is below `num_threads` and below any other thread's that works at
/// the same time; the calling thread is worker 0. Returns when all calls have returned, and rethrows the first exception; indices not begun
/// by then are left out. Calls from within `work` run on the calling thread alone.
///
/// Unlike the end of an OpenMP region this does not wait for threads that never got to run: where the processors are also needed to read
/// and write, that wait is longer than the work (docs/decisions/013-team-without-a-barrier.md).
void for_each_index(int num_threads, std::size_t count, const std::function<void(std::size_t index, std::size_t worker)>& work);

}  // namespace moeweld
