#include "launch/worker_environment.h"

#include <algorithm>

#include "launch/guard.h"

namespace lh {

Assignment get_assignment(const Message& m) {
  Assignment a;
  a.generation = m.number("generation", 0);
  a.nodes = m.number("nodes", 1, 1 << 20);
  a.node = m.number("node", 0, a.nodes - 1);
  a.world_size = m.number("world_size", 1, 1 << 30);
  a.first_rank = m.number("first_rank", 0, a.world_size - 1);
  a.master_addr = m.text("master_addr");
  a.master_port = m.number("master_port", 1, 65535);
  return a;
}

int64_t default_threads(int64_t workers) {
  return std::max<int64_t>(1, usable_cores() / workers);
}

std::vector<std::string> worker_environment(Environment e, const LaunchPlan& plan,
                                            const Assignment& a, int64_t local_rank,
                                            const std::string& error_file,
                                            const std::string& launch_id) {
  const auto set = [&](const char* name, auto value) { e[name] = fmt::format("{}", value); };
  set("RANK", a.first_rank + local_rank);
  set("LOCAL_RANK", plan.options.virtual_local_rank ? 0 : local_rank);
  if (!plan.devices.empty()) set("CUDA_VISIBLE_DEVICES", plan.devices[static_cast<size_t>(local_rank)]);
  set("WORLD_SIZE", a.world_size);
  set("LOCAL_WORLD_SIZE", plan.workers);
  set("GROUP_RANK", a.node);
  set("GROUP_WORLD_SIZE", a.nodes);
  set("ROLE_NAME", plan.options.role);
  set("ROLE_RANK", a.first_rank + local_rank);
  set("ROLE_WORLD_SIZE", a.world_size);
  set("MASTER_ADDR", a.master_addr);
  set("MASTER_PORT", a.master_port);
  set("TORCHELASTIC_RESTART_COUNT", a.generation);
  set("TORCHELASTIC_MAX_RESTARTS", plan.options.max_restarts);
  set("TORCHELASTIC_RUN_ID", plan.job_id);
  set("TORCHELASTIC_USE_AGENT_STORE", "False");
  set("TORCHELASTIC_ERROR_FILE", error_file);
  set("LH_ERROR_FILE", error_file);
  set("LH_GENERATION", a.generation);
  e[kLaunchMark] += (e[kLaunchMark].empty() ? "" : " ") + launch_id;
  if (plan.workers > 1 && !e.contains("OMP_NUM_THREADS"))
    set("OMP_NUM_THREADS", default_threads(plan.workers));
  e.try_emplace("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1");
  std::vector<std::string> lines;
  for (const auto& [name, value] : e) lines.push_back(name + "=" + value);
  return lines;
}

}  // namespace lh
