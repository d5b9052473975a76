#include "launch/options.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <map>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "launch/failure.h"

namespace lh {
namespace {

constexpr int64_t kMostNodes = 4096, kMostWorkers = 1024;
constexpr int64_t kRendezvousPort = 29400;  // torchrun's for c10d
constexpr int64_t kMasterPort = 29500;      // and for static

std::optional<int64_t> to_number(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const size_t at = std::min(text.find(separator), text.size());
    parts.emplace_back(text.substr(0, at));
    text.remove_prefix(std::min(at + 1, text.size()));
  }
  return parts;
}

void read_nodes(LaunchPlan& plan) {
  const std::string& text = plan.options.nnodes;
  const size_t colon = text.find(':');
  const auto low = to_number(text.substr(0, colon));
  const auto high = colon == std::string::npos ? low : to_number(text.substr(colon + 1));
  if (!low || !high || *low < 1 || *high < *low || *high > kMostNodes)
    fail<ConfigError>("--nnodes {}: expected N or MIN:MAX with 1 <= MIN <= MAX <= {}", text,
                      kMostNodes);
  plan.min_nodes = *low;
  plan.max_nodes = *high;
}

int64_t count_workers(const std::string& text) {
  const int64_t gpus = visible_gpus();
  if (text == "gpu") {
    if (gpus == 0)
      fail<ConfigError>("--nproc-per-node gpu: this machine shows no NVIDIA device; give a number");
    return gpus;
  }
  if (text == "cpu") return usable_cores();
  if (text == "auto") return gpus > 0 ? gpus : usable_cores();
  const auto number = to_number(text);
  if (!number || *number < 1 || *number > kMostWorkers)
    fail<ConfigError>("--nproc-per-node {}: expected 1 to {}, gpu, cpu or auto", text,
                      kMostWorkers);
  return *number;
}

void read_endpoint(LaunchPlan& plan, const std::string& text, int64_t default_port) {
  std::string port;
  if (text.starts_with('[')) {  // [IPv6]:port
    const size_t close = text.find(']');
    plan.host = text.substr(1, close == std::string::npos ? close : close - 1);
    if (close != std::string::npos && close + 1 < text.size()) port = text.substr(close + 1);
    if (close == std::string::npos || (!port.empty() && port[0] != ':'))
      fail<ConfigError>("--rdzv-endpoint {}: expected HOST[:PORT], IPv6 in brackets", text);
    if (!port.empty()) port.erase(0, 1);
  } else {
    const size_t colon = text.find(':');
    plan.host = text.substr(0, colon);
    if (colon != std::string::npos) port = text.substr(colon + 1);
  }
  plan.port = port.empty() ? default_port : to_number(port).value_or(-1);
  if (plan.host.empty() || plan.port < 0 || plan.port > 65535)
    fail<ConfigError>(
        "--rdzv-endpoint {}: expected HOST[:PORT] with a port up to 65535; IPv6 in "
        "brackets",
        text);
}

double positive(const std::string& key, const std::string& value) {
  char* end = nullptr;
  const double number = std::strtod(value.c_str(), &end);
  if (value.empty() || *end != '\0' || !(number > 0 && number <= 1e6))
    fail<ConfigError>("--rdzv-conf {}={}: expected seconds above 0", key, value);
  return number;
}

void read_conf(LaunchPlan& plan) {
  static const std::vector<std::string> kKnown = {"timeout",
                                                  "join_timeout",
                                                  "last_call_timeout",
                                                  "keep_alive_interval",
                                                  "keep_alive_max_attempt",
                                                  "is_host",
                                                  "close_timeout",
                                                  "heartbeat",
                                                  "store_type",
                                                  "read_timeout",
                                                  "rank"};
  double interval = 1;  // torchrun: 5 s, three times; a silent node is lost sooner here
  double attempts = 3;
  for (const std::string& pair : split(plan.options.rdzv_conf, ',')) {
    const size_t equals = pair.find('=');
    const std::string key = pair.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : pair.substr(equals + 1);
    if (std::find(kKnown.begin(), kKnown.end(), key) == kKnown.end())
      fail<ConfigError>("--rdzv-conf: unknown key '{}'{}", key, did_you_mean(key, kKnown));
    if (key == "timeout" || key == "join_timeout") plan.join_timeout = positive(key, value);
    if (key == "last_call_timeout") plan.last_call = positive(key, value);
    if (key == "keep_alive_interval") interval = positive(key, value);
    if (key == "keep_alive_max_attempt") attempts = positive(key, value);
    if (key == "is_host") {
      const bool yes = value == "1" || value == "true" || value == "True";
      if (!yes && value != "0" && value != "false" && value != "False")
        fail<ConfigError>("--rdzv-conf is_host={}: expected true or false", value);
      plan.is_host = yes;
    }
  }
  plan.lost_after = interval * attempts;
  plan.beat_every = std::min(interval, plan.lost_after / 3) / 2;
}

/// Where the nodes meet: torchrun's rules, except that one node needs no fixed port.
void read_rendezvous(LaunchPlan& plan) {
  const LaunchOptions& o = plan.options;
  plan.job_id = o.rdzv_id;
  if (o.rdzv_backend != "static" && o.rdzv_backend != "c10d")
    fail<ConfigError>(
        "--rdzv-backend {}: expected static or c10d; both meet at a coordinator "
        "inside one of the launchers",
        o.rdzv_backend);
  if (o.master_port < 0 || o.master_port > 65535)
    fail<ConfigError>("--master-port {}: expected 1 to 65535", o.master_port);
  if (o.node_rank >= plan.max_nodes)
    fail<ConfigError>("--node-rank {} with --nnodes {}: ranks count from 0", o.node_rank, o.nnodes);
  if (o.standalone) {
    if (plan.max_nodes > 1)
      fail<ConfigError>("--standalone is for one node, got --nnodes {}", o.nnodes);
    if (!o.rdzv_endpoint.empty() || o.master_port > 0)
      log_warn("[launch] --standalone takes a free port of this machine: {} is ignored",
               o.rdzv_endpoint.empty() ? "--master-port" : "--rdzv-endpoint");
    return;
  }
  if (!o.rdzv_endpoint.empty()) {
    read_endpoint(plan, o.rdzv_endpoint, o.rdzv_backend == "c10d" ? kRendezvousPort : kMasterPort);
    if (plan.port == 0 && plan.max_nodes > 1)
      fail<ConfigError>("--rdzv-endpoint {}: several nodes cannot meet at any free port: give one", o.rdzv_endpoint);
  } else if (plan.max_nodes > 1) {
    if (o.rdzv_backend == "c10d" || o.master_addr.empty())
      fail<ConfigError>(
          "--nnodes {}: several nodes need --rdzv-endpoint HOST:PORT, the same on all "
          "(or --master-addr with --node-rank)",
          o.nnodes);
    plan.host = o.master_addr;
    plan.port = o.master_port > 0 ? o.master_port : kMasterPort;
  }
  if (plan.max_nodes == 1 && o.rdzv_endpoint.empty() && o.master_port > 0) {
    plan.own_master_addr = o.master_addr.empty() ? "127.0.0.1" : o.master_addr;
    plan.own_master_port = o.master_port;
  }
  // torchrun's rule for static: node 0 is the host, whatever its address looks like from inside.
  if (!plan.is_host && plan.max_nodes > 1 && o.rdzv_backend == "static" && o.node_rank >= 0)
    plan.is_host = o.node_rank == 0;
}

Streams streams_of(const std::string& option, const std::string& value) {
  if (value.size() != 1 || value[0] < '0' || value[0] > '3')
    fail<ConfigError>(
        "{} '{}': expected 0 none, 1 stdout, 2 stderr, 3 both, or a map of local "
        "ranks such as 0:3,1:2",
        option, value);
  return {((value[0] - '0') & 1) != 0, ((value[0] - '0') & 2) != 0};
}

std::vector<Streams> read_streams(const std::string& option, const std::string& text,
                                  int64_t workers) {
  const auto count = static_cast<size_t>(workers);
  if (text.find(':') == std::string::npos)
    return std::vector<Streams>(count, streams_of(option, text));
  std::vector<Streams> result(count);
  for (const std::string& pair : split(text, ',')) {
    const size_t colon = pair.find(':');
    const auto rank = to_number(pair.substr(0, colon));
    if (!rank || *rank < 0 || colon == std::string::npos)
      fail<ConfigError>("{} {}: '{}' is not LOCAL_RANK:STREAMS", option, text, pair);
    const Streams streams = streams_of(option, pair.substr(colon + 1));
    // A rank that is not there does no harm: one map then serves nodes of different sizes.
    if (*rank < workers) result[static_cast<size_t>(*rank)] = streams;
  }
  return result;
}

void read_output(LaunchPlan& plan) {
  const LaunchOptions& o = plan.options;
  plan.to_file = read_streams("--redirects", o.redirects, plan.workers);
  plan.to_console = read_streams("--tee", o.tee, plan.workers);
  plan.shown.assign(static_cast<size_t>(plan.workers), o.local_ranks_filter.empty());
  for (const std::string& part : split(o.local_ranks_filter, ',')) {
    const auto rank = to_number(part);
    if (!rank || *rank < 0)
      fail<ConfigError>("--local-ranks-filter {}: expected whole numbers with commas, e.g. 0,2",
                        o.local_ranks_filter);
    if (*rank < plan.workers) plan.shown[static_cast<size_t>(*rank)] = true;
  }
  bool any = false;
  for (size_t i = 0; i < plan.to_file.size(); ++i) {
    // What is shown with a prefix is read from a file, so it goes to one.
    plan.to_file[i].out |= plan.to_console[i].out;
    plan.to_file[i].err |= plan.to_console[i].err;
    any |= plan.to_file[i].out || plan.to_file[i].err;
    if (!plan.shown[i]) plan.to_console[i] = {};
  }
  if (any && o.log_dir == "/dev/null")
    fail<ConfigError>("--log-dir /dev/null leaves no place for --redirects and --tee");
}

/// Words with commas between them; two commas are one that belongs to the word.
std::vector<std::string> read_words(const std::string& option, const std::string& text) {
  std::vector<std::string> words;
  if (text.empty()) return words;
  words.emplace_back();
  for (size_t at = 0; at < text.size(); ++at) {
    if (text[at] != ',') {
      words.back() += text[at];
    } else if (at + 1 < text.size() && text[at + 1] == ',') {
      words.back() += text[at++];
    } else {
      words.emplace_back();
    }
  }
  for (const std::string& word : words)
    if (word.empty()) fail<ConfigError>("{} '{}': an empty word would match every line; leave it out", option, text);
  return words;
}

/// The filters copy from the workers' files, as torchrun's do; without a file they would copy nothing.
void read_filters(LaunchPlan& plan) {
  const LaunchOptions& o = plan.options;
  plan.stdout_words = read_words("--duplicate-stdout-filters", o.stdout_filters);
  plan.stderr_words = read_words("--duplicate-stderr-filters", o.stderr_filters);
  bool out = false, err = false;
  for (const Streams& streams : plan.to_file) {
    out |= streams.out;
    err |= streams.err;
  }
  if (!plan.stdout_words.empty() && !out)
    fail<ConfigError>("--duplicate-stdout-filters copies from files: add --redirects 1 or --tee 1 (3 for both streams)");
  if (!plan.stderr_words.empty() && !err)
    fail<ConfigError>("--duplicate-stderr-filters copies from files: add --redirects 2 or --tee 2 (3 for both streams)");
}

/// One device for each worker, by the names that CUDA_VISIBLE_DEVICES has for them.
void read_devices(LaunchPlan& plan) {
  const int64_t gpus = visible_gpus();
  if (!plan.options.virtual_local_rank || gpus == 0) return;
  if (plan.workers > gpus)
    fail<ConfigError>("--virtual-local-rank gives each of {} workers a device, but this machine shows {}: lower "
                      "--nproc-per-node",
                      plan.workers, gpus);
  const char* listed = std::getenv("CUDA_VISIBLE_DEVICES");
  if (listed != nullptr) plan.devices = split(listed, ',');
  for (int64_t i = 0; listed == nullptr && i < gpus; ++i) plan.devices.push_back(std::to_string(i));
}

void read_signals(LaunchPlan& plan) {
  std::map<std::string, int> known;
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGXCPU})
    known[signal_name(signal)] = signal;
  for (const std::string& name : split(plan.options.signals_to_handle, ',')) {
    if (!known.contains(name))
      fail<ConfigError>(
          "--signals-to-handle: '{}' is not one of SIGTERM, SIGINT, SIGHUP, SIGQUIT, "
          "SIGUSR1, SIGUSR2, SIGXCPU",
          name);
    plan.signals.push_back(known[name]);
  }
}

}  // namespace

int64_t usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

int64_t visible_gpus() {
  int64_t count = 0;
  if (const char* listed = std::getenv("CUDA_VISIBLE_DEVICES"); listed != nullptr) {
    for (const std::string& name : split(listed, ',')) {
      // As CUDA does: what is no device ends the list.
      if (!to_number(name) && !name.starts_with("GPU-") && !name.starts_with("MIG-")) break;
      ++count;
    }
    return count;
  }
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/dev", ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("nvidia") && to_number(name.substr(6))) ++count;
  }
  return count;
}

LaunchPlan make_plan(const LaunchOptions& options) {
  LaunchPlan plan;
  plan.options = options;
  if (options.command.empty() || options.command[0].empty())
    fail<ConfigError>(
        "launch: expected a program, e.g. longhand launch --nproc-per-node 4 -- train "
        "RECIPE");
  read_nodes(plan);
  plan.workers = count_workers(options.nproc_per_node);
  read_conf(plan);
  read_rendezvous(plan);
  read_output(plan);
  read_filters(plan);
  read_devices(plan);
  read_signals(plan);
  if (options.max_restarts < 0)
    fail<ConfigError>("--max-restarts {}: expected 0 or more", options.max_restarts);
  for (const auto& [name, value] :
       {std::pair{"--grace", options.grace}, std::pair{"--failure-grace", options.failure_grace}})
    if (!(value >= 0 && value <= 1e5))
      fail<ConfigError>("{} {}: expected seconds from 0 to 100000", name, value);
  return plan;
}

}  // namespace lh
