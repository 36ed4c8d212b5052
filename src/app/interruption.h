#pragma once
/// SIGINT, SIGTERM and SIGUSR1 (a batch system's warning before the time limit) as a flag that the pipeline looks at.

namespace moeweld::app {

/// From now on the signals set the flag; a second SIGINT ends the program at once.
void watch_signals();
/// Throws Error(kInterrupted) once a signal has come.
void stop_if_interrupted();

}  // namespace moeweld::app
