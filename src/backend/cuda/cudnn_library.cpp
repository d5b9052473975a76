#include "backend/cuda/cudnn_library.h"

#include <dlfcn.h>

#include "base/error.h"

namespace lh::cuda::cudnn {
namespace {

constexpr size_t kOldest = 90800;  // plans for a described device

struct Loaded {
  Library functions{};
  std::string reason;
};

template <typename Function>
void look_up(void* library, const char* name, Function& function, std::string& reason) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr && reason.empty()) reason = fmt::format("libcudnn.so.9 has no {}", name);
}

Loaded load() {
  Loaded result;
  void* library = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* why = dlerror();
    result.reason = why == nullptr ? "libcudnn.so.9 can't be loaded" : why;
    return result;
  }
  Library& f = result.functions;
  std::string& reason = result.reason;
  look_up(library, "cudnnGetVersion", f.get_version, reason);
  look_up(library, "cudnnGetErrorString", f.get_error_string, reason);
  look_up(library, "cudnnGetLastErrorString", f.get_last_error_string, reason);
  look_up(library, "cudnnCreate", f.create, reason);
  look_up(library, "cudnnSetStream", f.set_stream, reason);
  look_up(library, "cudnnBackendCreateDescriptor", f.create_descriptor, reason);
  look_up(library, "cudnnBackendDestroyDescriptor", f.destroy_descriptor, reason);
  look_up(library, "cudnnBackendSetAttribute", f.set_attribute, reason);
  look_up(library, "cudnnBackendGetAttribute", f.get_attribute, reason);
  look_up(library, "cudnnBackendFinalize", f.finalize, reason);
  look_up(library, "cudnnBackendExecute", f.execute, reason);
  if (reason.empty() && f.get_version() < kOldest)
    reason = fmt::format("cuDNN {} is older than {}", f.get_version(), kOldest);
  return result;
}

const Loaded& loaded() {
  static const Loaded result = load();
  return result;
}

}  // namespace

const std::string& unavailable_reason() {
  return loaded().reason;
}

const Library& library() {
  if (!loaded().reason.empty()) fail("[cudnn] {}", loaded().reason);
  return loaded().functions;
}

void check(cudnnStatus_t status, const char* what) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  char reason[512] = "";
  library().get_last_error_string(reason, sizeof reason);
  fail("[cudnn] {}: {} ({})", what, library().get_error_string(status), reason);
}

}  // namespace lh::cuda::cudnn
