#include "cli/launch_arguments.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "base/error.h"
#include "base/log.h"

namespace lh {
namespace {

constexpr const char* kFooter =
    "\nThe program is any program, or one of longhand's commands: longhand launch -- train "
    "RECIPE.\n"
    "Every option is also read from PET_<NAME>, as torchrun does: PET_NPROC_PER_NODE=8.\n"
    "Workers get torchrun's variables (RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, "
    "...),\n"
    "LH_GENERATION, the same number on all nodes, and LH_ERROR_FILE for the reason of their end.\n"
    "\nExit codes: 0 all workers returned 0; 1 the job failed, or was stopped without saving;\n"
    "2 wrong options; 75 stopped after saving (all workers returned 0 or 75): run it again.\n"
    "\nA failure anywhere stops all nodes within a second and is printed once per node. A signal\n"
    "reaches the workers of all nodes as one SIGTERM, and SIGKILL follows after --grace; a second\n"
    "Ctrl-C kills at once. `exec` the program in a wrapper script, so that it gets the signal.\n"
    "Examples for Slurm, MPI, Kubernetes and ssh are in scripts/cluster/.";

}  // namespace

std::shared_ptr<LaunchOptions> add_launch_options(CLI::App& command) {
  auto o = std::make_shared<LaunchOptions>();
  command.footer(kFooter);
  const auto add = [&](const std::string& names, auto& target, const std::string& help) {
    CLI::Option* option = command.add_option(names, target, help)->capture_default_str();
    std::string variable = "PET_" + option->get_lnames().front();
    for (char& c : variable) c = c == '-' ? '_' : static_cast<char>(std::toupper(c));
    return option->envname(variable);
  };
  const auto flag = [&](const std::string& name, bool& target, const std::string& help) {
    std::string variable = "PET_" + name.substr(2);
    for (char& c : variable) c = c == '-' ? '_' : static_cast<char>(std::toupper(c));
    command.add_flag(name, target, help)->envname(variable);
  };
  // For the help only: the program and what follows it is cut off before the options are read.
  command.add_option("program", o->command, "Program and its arguments");
  const char* const kWhere = "Nodes";
  add("--nnodes", o->nnodes, "Nodes: N or MIN:MAX")->group(kWhere);
  add("--nproc-per-node", o->nproc_per_node, "Workers here: a number, gpu, cpu or auto")
      ->group(kWhere);
  flag("--virtual-local-rank", o->virtual_local_rank,
       "Each worker gets LOCAL_RANK=0 and, in CUDA_VISIBLE_DEVICES, one device");
  flag("--standalone", o->standalone, "One node, any free port");
  add("--rdzv-endpoint", o->rdzv_endpoint,
      "HOST[:PORT] where the nodes meet; the launcher on HOST runs the coordinator")
      ->group(kWhere);
  add("--rdzv-id", o->rdzv_id, "Job id: nodes of another job are refused")->group(kWhere);
  add("--rdzv-backend", o->rdzv_backend, "static or c10d: the default port is 29500 or 29400")
      ->group(kWhere);
  add("--rdzv-conf", o->rdzv_conf,
      "KEY=VALUE,...: join_timeout (600 s), last_call_timeout (30 s, after MIN nodes), "
      "keep_alive_interval (1 s), keep_alive_max_attempt (3), is_host")
      ->group(kWhere);
  add("--node-rank", o->node_rank, "This node's place (default: by host name)")->group(kWhere);
  add("--master-addr", o->master_addr, "With static and no endpoint: the host of node 0")
      ->group(kWhere);
  add("--master-port", o->master_port, "The same: its port (default: 29500)")->group(kWhere);
  add("--local-addr", o->local_addr, "How other nodes reach this one (default: found)")
      ->group(kWhere);
  const char* const kEnds = "Failures and signals";
  add("--max-restarts", o->max_restarts, "Times the whole job is started again after a failure")
      ->group(kEnds);
  add("--grace,--shutdown-timeout", o->grace, "Seconds from SIGTERM to SIGKILL on a signal")
      ->group(kEnds);
  add("--failure-grace", o->failure_grace, "The same after a failure")->group(kEnds);
  add("--signals-to-handle", o->signals_to_handle, "Signals that stop the job")->group(kEnds);
  flag("--propagate-exit-code", o->propagate_exit_code,
       "Return the failed worker's code, or 128 + its signal, instead of 1");
  const char* const kOutput = "Output";
  add("--log-dir", o->log_dir,
      "Holds JOB_*/attempt_GENERATION/LOCAL_RANK/{stdout.log,stderr.log,error.json}")
      ->group(kOutput);
  add("-r,--redirects", o->redirects,
      "To files: 0 none, 1 stdout, 2 stderr, 3 both, or by local rank 0:3,1:2")
      ->group(kOutput);
  add("-t,--tee", o->tee, "To files and, with a prefix, the console: as --redirects")
      ->group(kOutput);
  add("--local-ranks-filter", o->local_ranks_filter, "Local ranks the console shows: 0,2")
      ->group(kOutput);
  add("--duplicate-stdout-filters", o->stdout_filters,
      "Words with commas (,, is a comma): lines with one of them, from stdout.log of all workers, go to "
      "attempt_GENERATION/filtered_stdout.log as well")
      ->group(kOutput);
  add("--duplicate-stderr-filters", o->stderr_filters, "The same for stderr")->group(kOutput);
  add("--role", o->role, "Name in the prefix and in ROLE_NAME")->group(kOutput);

  // torchrun's options that have no work here: programs are executed as they are, and ends are
  // noticed without polling.
  const char* const kIgnored = "Taken for torchrun's sake, without effect";
  command
      .add_flag_function(
          "--no-python", [](int64_t) {}, "Every program is run as it is")
      ->group(kIgnored);
  command
      .add_option_function<std::string>(
          "--monitor-interval,--start-method", [](const std::string&) {},
          "Ends are noticed at once")
      ->group(kIgnored);
  command
      .add_option_function<std::string>(
          "--event-log-handler",
          [](const std::string& name) {
            if (name != "null") log_info("[launch] --event-log-handler {} is ignored: no events are recorded", name);
          },
          "There are no events to handle")
      ->envname("PET_EVENT_LOG_HANDLER")
      ->group(kIgnored);
  command
      .add_option_function<std::string>(
          "--logs-specs",
          [](const std::string& name) {
            log_info("[launch] --logs-specs {} is ignored: logs are laid out as --log-dir says", name);
          },
          "A Python class can't lay out the logs")
      ->group(kIgnored);
  // Without these a program would run in another way than asked for.
  const char* const kRefused = "";
  const auto refuse = [&](const std::string& names, const std::string& why) {
    return command.add_flag_function(names, [names, why](int64_t count) {
      if (count > 0) fail<ConfigError>("{}: {}", names, why);
    })->group(kRefused);
  };
  refuse("-m,--module", "programs are run as they are; for a module write -- python -m MODULE")->envname("PET_MODULE");
  refuse("--run-path", "programs are run as they are; for a script write -- python SCRIPT")->envname("PET_RUN_PATH");
  command
      .add_option_function<std::string>("--numa-binding",
                                        [](const std::string& mode) {
                                          fail<ConfigError>(
                                              "--numa-binding {}: workers are not bound to cores here; leave it out, or "
                                              "start the program through numactl or taskset",
                                              mode);
                                        })
      ->group(kRefused);
  return o;
}

LaunchWords split_launch_words(const CLI::App& command, const std::vector<std::string>& words) {
  LaunchWords result;
  size_t i = 0;
  for (; i < words.size(); ++i) {
    std::string word = words[i];
    if (word == "--") {
      ++i;
      break;
    }
    if (word.size() < 2 || word[0] != '-') break;
    const size_t equals = std::min(word.find('='), word.size());
    if (word.starts_with("--")) std::replace(word.begin(), word.begin() + equals, '_', '-');
    result.own.push_back(word);
    // An option's value is the next word, unless it's in this one: --nnodes=2, -r3.
    const std::string name = word.starts_with("--") ? word.substr(0, equals) : word.substr(0, 2);
    const CLI::Option* option = command.get_option_no_throw(name);
    if (option != nullptr && option->get_items_expected_max() != 0 && name.size() == word.size() &&
        i + 1 < words.size())
      result.own.push_back(words[++i]);
  }
  result.program.assign(words.begin() + static_cast<std::ptrdiff_t>(std::min(i, words.size())),
                        words.end());
  return result;
}

}  // namespace lh
