#include "cli/doctor.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <sys/statvfs.h>

#include <array>
#include <vector>

#include "base/text.h"
#include "runtime/cpu_info.h"
#include "runtime/device.h"

namespace lh {
namespace {

/// Number of CUDA devices by the driver's own count, asked without linking to it; -1: no driver.
int cuda_devices() {
  void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (driver == nullptr) return -1;
  const auto init = reinterpret_cast<int (*)(unsigned)>(dlsym(driver, "cuInit"));
  const auto count = reinterpret_cast<int (*)(int*)>(dlsym(driver, "cuDeviceGetCount"));
  int devices = 0;
  if (init == nullptr || count == nullptr || init(0) != 0 || count(&devices) != 0) devices = -1;
  dlclose(driver);
  return devices;
}

bool library_present(const char* name) {
  void* library = dlopen(name, RTLD_LAZY | RTLD_LOCAL);
  if (library != nullptr) dlclose(library);
  return library != nullptr;
}

std::string matrix_path(const CpuInfo& cpu) {
  if (cpu.amx_bf16) return "bf16 through AMX tiles; f32 through AVX-512";
  if (cpu.avx512_bf16) return "bf16 through AVX-512-BF16; f32 through AVX-512";
  if (cpu.avx512) return "f32 through AVX-512; bf16 is converted to f32 (slower than f32)";
  if (cpu.avx2) return "f32 through AVX2; bf16 is converted to f32 (slower than f32)";
  return "f32 without vector extensions (slow)";
}

}  // namespace

std::string doctor_report() {
  const CpuInfo& cpu = cpu_info();
  std::string text;
  const auto line = [&](const char* what, const std::string& value) {
    text += fmt::format("{:<18}{}\n", what, value);
  };
  const auto yes = [](bool present) { return present ? "yes" : "no"; };
  line("processor", cpu.model);
  line("cores", fmt::format("{} usable", cpu.logical_cores));
  line("memory", format_bytes(static_cast<double>(cpu.memory_bytes)));
  line("instructions",
       fmt::format("AVX2 {}, FMA {}, AVX-512 {}, AVX-512-BF16 {}, AMX-BF16 {}", yes(cpu.avx2),
                   yes(cpu.fma), yes(cpu.avx512), yes(cpu.avx512_bf16), yes(cpu.amx_bf16)));
  line("kernels", fmt::format("compiled for {}", simd_level_name(cpu.simd)));
#ifdef LH_WITH_ONEDNN
  line("matrix library", "oneDNN");
#else
  line("matrix library", "Eigen (install libdnnl-dev and rebuild for a faster one)");
#endif
  line("libraries", LH_LIBRARIES);
  line("matrix products", matrix_path(cpu));
  line("precision: auto", cpu.amx_bf16 || cpu.avx512_bf16 ? "bf16" : "fp32");
  const int devices = cuda_devices();
  line("CUDA driver", devices < 0 ? "not found" : fmt::format("{} device(s)", devices));
  line("cuDNN", library_present("libcudnn.so.9") ? "found" : "not found");
  line("NCCL", library_present("libnccl.so.2") ? "found" : "not found");
  line("this build", kWithCuda ? "CPU and CUDA"
                     : devices > 0
                         ? "CPU only: install the CUDA toolkit and rebuild, or configure with "
                           "-DLH_CUDA=ON, to use the devices"
                         : "CPU only");
  if (kWithCuda && devices > 0)
    line("trains on", "CUDA unless the recipe says run.device: cpu");
  else
    line("trains on", "CPU");
  struct statvfs disk {};
  if (statvfs(".", &disk) == 0)
    line("disk here",
         format_bytes(static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize)) +
             " free");
  return text;
}

}  // namespace lh
