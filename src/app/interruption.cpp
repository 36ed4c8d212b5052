#include "app/interruption.h"

#include <signal.h>

#include <string>

#include "moeweld/base/error.h"

namespace moeweld::app {

namespace {

volatile sig_atomic_t received_signal = 0;

void remember(int signal) {
  if (received_signal != 0 && signal == SIGINT) {
    ::signal(SIGINT, SIG_DFL);
    raise(SIGINT);
  }
  received_signal = signal;
}

}  // namespace

void watch_signals() {
  struct sigaction action {};
  action.sa_handler = remember;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGUSR1, &action, nullptr);
}

void stop_if_interrupted() {
  if (received_signal == 0) return;
  const int signal = received_signal;
  throw Error(ErrorCode::kInterrupted, std::string("interrupted by ") + (signal == SIGINT    ? "SIGINT"
                                                                         : signal == SIGTERM ? "SIGTERM"
                                                                                             : "SIGUSR1"));
}

}  // namespace moeweld::app
