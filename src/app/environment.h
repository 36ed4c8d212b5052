#pragma once
/// What has to be so before libraries look at it.

namespace moeweld::app {

/// libgomp and OpenBLAS read the environment when they are loaded: threads that wait must sleep, not spin, because the reader and writer
/// threads need the cores, and BLAS is called with one thread. Sets what the user has not set (more
/// than one BLAS thread is never kept: the tiles of a product are what runs in parallel) and starts the program again, once.
void settle_environment(char** argv);

}  // namespace moeweld::app
