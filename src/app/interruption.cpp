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
}

void stop_if_interrupted() {
  if (received_signal == 0) return;
  throw Error(ErrorCode::kInterrupted, "interrupted by " + std::string(received_signal == SIGINT ? "SIGINT" : "SIGTERM") +
                                           ". Nothing is left behind; run the command again.");
}

}  // namespace moeweld::app
