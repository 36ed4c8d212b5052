#pragma once
/// What has to be so before libraries look at it.

namespace moeweld::app {

/// libgomp and OpenBLAS read the environment when they are loaded: threads that wait must sleep, not spin, because the reader and writer
/// threads need the cores, and BLAS is called with one thread. Sets what the user has not set and starts the program again, once.
void settle_environment(char** argv);

/// Cores this process may use: those of its affinity mask, shared with the other ranks of the host when the mask is shared too.
int default_threads(int ranks_on_host);

}  // namespace moeweld::app
