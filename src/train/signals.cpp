#include "train/signals.h"

#include <unistd.h>

#include <csignal>

namespace lh {
namespace {

std::atomic<int> g_signal{0};  // lock-free, so a handler may write it
std::atomic<bool> g_requested{false};

extern "C" void remember_signal(int signal_number) {
  if (g_signal == SIGINT && signal_number == SIGINT) {
    std::signal(SIGINT, SIG_DFL);
    ::raise(SIGINT);
  }
  set_stop_signal(signal_number);
}

}  // namespace

void install_stop_signals() {
  struct sigaction action {};
  action.sa_handler = remember_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;  // a write in progress goes on; loops poll the flag
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGUSR1, &action, nullptr);
  sigset_t waited;
  sigemptyset(&waited);
  sigaddset(&waited, SIGTERM);
  pthread_sigmask(SIG_UNBLOCK, &waited, nullptr);
}

int stop_signal() {
  return g_signal;
}

const std::atomic<bool>& stop_requested() {
  return g_requested;
}

void set_stop_signal(int signal_number) {
  g_signal = signal_number;
  g_requested = signal_number != 0;
}

}  // namespace lh
