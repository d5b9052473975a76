// What the launcher's options mean, and what is said about wrong ones.
#include <doctest/doctest.h>

#include <csignal>

#include "launch/options.h"
#include "support/folder.h"

namespace {

using namespace lh;
using namespace lh::test;

template <typename F>
LaunchPlan plan_of(const F& change) {
  LaunchOptions options;
  options.command = {"true"};
  change(options);
  return make_plan(options);
}

template <typename F>
std::string error_for(const F& change) {
  return error_of<ConfigError>([&] { plan_of(change); });
}

TEST_CASE("one node needs nothing and several need a place to meet") {
  const LaunchPlan one = plan_of([](LaunchOptions&) {});
  CHECK(one.workers == 1);
  CHECK(one.host.empty());
  CHECK(one.port == 0);
  CHECK(one.lost_after == 3);
  const LaunchPlan own = plan_of([](LaunchOptions& o) { o.master_port = 1234; });
  CHECK(own.own_master_addr == "127.0.0.1");
  CHECK(own.own_master_port == 1234);
  CHECK(own.port == 0);

  const LaunchPlan range = plan_of([](LaunchOptions& o) {
    o.nnodes = "2:4";
    o.rdzv_backend = "c10d";
    o.rdzv_endpoint = "head";
  });
  CHECK(range.min_nodes == 2);
  CHECK(range.max_nodes == 4);
  CHECK(range.host == "head");
  CHECK(range.port == 29400);
  CHECK(!range.is_host.has_value());

  const LaunchPlan classic = plan_of([](LaunchOptions& o) {
    o.nnodes = "2";
    o.node_rank = 1;
    o.master_addr = "head";
  });
  CHECK(classic.host == "head");
  CHECK(classic.port == 29500);
  CHECK(classic.is_host == false);

  const LaunchPlan v6 = plan_of([](LaunchOptions& o) {
    o.nnodes = "2";
    o.rdzv_endpoint = "[fe80::1]:77";
    o.rdzv_conf =
        "is_host=1,join_timeout=7,last_call_timeout=2,keep_alive_interval=2,"
        "keep_alive_max_attempt=5,read_timeout=60";
  });
  CHECK(v6.host == "fe80::1");
  CHECK(v6.port == 77);
  CHECK(v6.is_host == true);
  CHECK(v6.join_timeout == 7);
  CHECK(v6.last_call == 2);
  CHECK(v6.lost_after == 10);
  CHECK(v6.beat_every <= v6.lost_after / 3);
}

TEST_CASE("streams and filters are torchrun's") {
  const LaunchPlan plan = plan_of([](LaunchOptions& o) {
    o.nproc_per_node = "12";
    o.redirects = "0:3,11:2";
    o.tee = "1";
    o.local_ranks_filter = "0,11";
  });
  CHECK(plan.to_file[0].out);
  CHECK(plan.to_file[0].err);
  CHECK(plan.to_file[5].out);  // tee means a file too
  CHECK(!plan.to_file[5].err);
  CHECK(plan.to_file[11].err);
  CHECK(plan.to_console[0].out);
  CHECK(!plan.to_console[0].err);
  CHECK(!plan.to_console[5].out);  // filtered
  CHECK(plan.to_console[11].out);
  CHECK(!plan.shown[5]);
  CHECK(plan.shown[11]);
  CHECK(plan_of([](LaunchOptions& o) { o.signals_to_handle = "SIGTERM,SIGUSR2"; }).signals ==
        std::vector<int>{SIGTERM, SIGUSR2});
}

TEST_CASE("filters are words with commas, and one device is left to each worker") {
  const LaunchPlan plan = plan_of([](LaunchOptions& o) {
    o.tee = "3";
    o.stdout_filters = "loss,a,,b,,,c";
    o.stderr_filters = "error";
  });
  CHECK(plan.stdout_words == std::vector<std::string>{"loss", "a,b,", "c"});
  CHECK(plan.stderr_words == std::vector<std::string>{"error"});
  const auto two = [](LaunchOptions& o) {
    o.nproc_per_node = "2";
    o.virtual_local_rank = true;
  };
  ::setenv("CUDA_VISIBLE_DEVICES", "5,GPU-ab,7", 1);
  CHECK(plan_of(two).devices == std::vector<std::string>{"5", "GPU-ab", "7"});
  ::setenv("CUDA_VISIBLE_DEVICES", "5", 1);
  CHECK(contains(error_for(two), "2 workers a device, but this machine shows 1"));
  ::setenv("CUDA_VISIBLE_DEVICES", "", 1);
  CHECK(plan_of(two).devices.empty());
  ::unsetenv("CUDA_VISIBLE_DEVICES");
}

TEST_CASE("words for counts") {
  CHECK(plan_of([](LaunchOptions& o) { o.nproc_per_node = "cpu"; }).workers == usable_cores());
  ::setenv("CUDA_VISIBLE_DEVICES", "0,3,4", 1);
  CHECK(plan_of([](LaunchOptions& o) { o.nproc_per_node = "gpu"; }).workers == 3);
  CHECK(plan_of([](LaunchOptions& o) { o.nproc_per_node = "auto"; }).workers == 3);
  ::setenv("CUDA_VISIBLE_DEVICES", "", 1);
  CHECK(
      contains(error_for([](LaunchOptions& o) { o.nproc_per_node = "gpu"; }), "no NVIDIA device"));
  ::unsetenv("CUDA_VISIBLE_DEVICES");
}

TEST_CASE("wrong options say what was expected") {
  using O = LaunchOptions;
  CHECK(contains(error_for([](O& o) { o.command.clear(); }), "expected a program"));
  for (const char* bad : {"0", "3:2", "x", "1:", ":2", "-1", "99999", "1:2:3", ""})
    CHECK(contains(error_for([&](O& o) { o.nnodes = bad; }), "MIN:MAX"));
  for (const char* bad : {"0", "-3", "4.5", "", "10000", "tpu"})
    CHECK(contains(error_for([&](O& o) { o.nproc_per_node = bad; }), "gpu, cpu or auto"));
  for (const char* bad : {":29400", "h:port", "h:70000", "[::1", "[::1]x", "h:-1"})
    CHECK(contains(error_for([&](O& o) { o.rdzv_endpoint = bad; }), "HOST[:PORT]"));
  for (const char* bad : {"4", "0:4", "x:1", "0:", "3,", "0:1,2"})
    CHECK(!error_for([&](O& o) { o.redirects = bad; }).empty());
  CHECK(contains(error_for([](O& o) { o.nnodes = "2"; }), "--rdzv-endpoint"));
  CHECK(contains(error_for([](O& o) {
                   o.nnodes = "2";
                   o.standalone = true;
                 }),
                 "one node"));
  CHECK(contains(error_for([](O& o) { o.rdzv_backend = "etcd"; }), "static or c10d"));
  CHECK(contains(error_for([](O& o) { o.rdzv_conf = "join_timout=3"; }),
                 "did you mean 'join_timeout'"));
  CHECK(contains(error_for([](O& o) { o.rdzv_conf = "timeout=soon"; }), "seconds above 0"));
  CHECK(contains(error_for([](O& o) { o.rdzv_conf = "is_host=2"; }), "true or false"));
  CHECK(contains(error_for([](O& o) { o.node_rank = 1; }), "ranks count from 0"));
  CHECK(contains(error_for([](O& o) { o.local_ranks_filter = "0,a"; }), "whole numbers"));
  CHECK(contains(error_for([](O& o) { o.signals_to_handle = "SIGKILL"; }), "SIGKILL"));
  CHECK(contains(error_for([](O& o) { o.max_restarts = -1; }), "--max-restarts"));
  CHECK(contains(error_for([](O& o) { o.grace = -1; }), "--grace"));
  CHECK(contains(error_for([](O& o) {
                   o.log_dir = "/dev/null";
                   o.tee = "3";
                 }),
                 "no place"));
  CHECK(contains(error_for([](O& o) { o.master_port = 70000; }), "--master-port"));
  CHECK(contains(error_for([](O& o) {
                   o.tee = "2";
                   o.stdout_filters = "loss";
                 }),
                 "add --redirects 1 or --tee 1"));
  CHECK(contains(error_for([](O& o) { o.stderr_filters = "error"; }), "add --redirects 2 or --tee 2"));
  for (const char* bad : {",", "a,", ",,,", "a,,,,,"})
    CHECK(contains(error_for([&](O& o) {
                     o.tee = "3";
                     o.stdout_filters = bad;
                   }),
                   "an empty word"));
}

}  // namespace
