// libFuzzer target: what comes in on the launcher's port. The input is the bytes of three
// connections, one byte in turn telling whose the next are; a coordinator makes of them what it
// can. Only a ProtocolError may come of it, and everything it answers can be sent.
#include <cstdint>
#include <map>
#include <string>

#include "launch/host_names.h"
#include "launch/job.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lh;
  Job job({.job_id = "j",

           .launcher = "l1",
           .min_nodes = 1,
           .max_nodes = 2,
           .max_restarts = 1,
           .join_timeout = 5,
           .last_call = 1},
          0);
  std::map<int64_t, FrameReader> readers;
  int64_t next = 3;
  int64_t connections[3] = {0, 1, 2};
  double now = 0;
  for (size_t at = 0; at + 2 <= size;) {
    int64_t& id = connections[data[at] % 3];
    const size_t length = std::min<size_t>(data[at + 1], size - at - 2);
    now += data[at] / 64.0;
    try {
      readers[id].feed({reinterpret_cast<const char*>(data) + at + 2, length});
      while (const auto message = readers[id].next()) job.receive(id, "peer", *message, now);
    } catch (const ProtocolError&) {
      job.closed(id, now);
      id = next++;
    }
    job.tick(now);
    for (const Job::Output& out : job.take_output()) encode(out.message);
    at += 2 + length;
  }
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    expand_host_list(text);
    expand_counts(text);
  } catch (const ConfigError&) {
    // not a list
  }
  natural_less(text, text.substr(size / 2));
  return 0;
}
