#!/usr/bin/env bash
# Checks who includes whom: the layers of src/, the few places where a third-party header may appear,
# and that kernels stand apart from src/ and from CUDA's own words. Prints each line that breaks a rule.
set -euo pipefail
cd "${1:-$(dirname "$0")/..}"
bad=0

grep -rHn '^#include' src | awk -F: '
function allow(folder, list) { allowed[folder] = " " folder " " list " " }
function keep(header, places) { home[header] = places; order[++headers] = header }
BEGIN {
  # Each folder and what it may include besides itself.
  allow("base", "")
  allow("storage", "base")
  allow("tokenizer", "base")
  allow("config", "base")
  allow("runtime", "base")
  allow("launch", "base")
  allow("tensor", "base runtime")
  allow("backend", "base runtime tensor")
  allow("autograd", "base runtime tensor backend")
  allow("ops", "base runtime tensor backend autograd")
  allow("dist", "base runtime tensor backend")
  allow("parallel", "base runtime tensor backend autograd ops dist")
  allow("nn", "base config runtime tensor backend autograd ops")
  allow("mixers", "base config runtime tensor backend autograd ops dist parallel nn")
  allow("models", "base config runtime tensor backend autograd ops nn mixers")
  allow("optim", "base config runtime tensor backend autograd nn")
  allow("data", "base storage tokenizer config")
  allow("checkpoint", "base storage config runtime tensor backend nn optim")
  allow("train", "base launch storage tokenizer config runtime tensor backend autograd ops dist parallel nn mixers models optim data checkpoint")
  allow("bench", "base config runtime tensor backend autograd ops mixers models optim data train")
  allow("cli", "base launch tokenizer config runtime tensor dist models data checkpoint train bench")
  # Third-party headers and the paths that may name them.
  keep("Eigen/", "src/backend/cpu/")
  keep("oneapi/", "src/backend/cpu/")
  keep("cuda", "src/runtime/gpu_cuda.cpp src/runtime/cuda_check.h")
  keep("cublasLt.h", "src/backend/cuda/")
  keep("nccl.h", "src/dist/nccl_transport.cpp")
  keep("gloo/", "src/dist/gloo_transport.cpp")
  keep("cudnn", "src/backend/cuda/cudnn_")
  keep("omp.h", "src/backend/cpu/ src/train/")
  keep("hdf5.h", "src/storage/ src/data/ src/checkpoint/")
  keep("nlohmann/", "src/tokenizer/ src/data/ src/checkpoint/ src/train/ src/bench/ src/launch/error_file.cpp")
  keep("yaml-cpp/", "src/config/yaml.cpp")
  keep("CLI/", "src/cli/app.cpp src/cli/launch_arguments.cpp")
  keep("pcre2.h", "src/tokenizer/")
  keep("utf8proc.h", "src/tokenizer/")
  keep("xxhash.h", "src/base/")
  keep("zlib.h", "src/data/")
}
{
  path = $1; split(path, part, "/"); folder = part[2]
  line = $3; for (i = 4; i <= NF; i++) line = line ":" $i
  if (match(line, /"[^"]+"/)) {
    target = substr(line, RSTART + 1, RLENGTH - 2)
    split(target, to, "/")
    # The CUDA backend calls kernels; nothing else does. The emulated device belongs to the emulator.
    if (to[1] == "kernels") {
      if (path !~ "^src/backend/cuda/" && !(path ~ "/gpu_emulated.cpp$" && target ~ "^kernels/xpu/emu/")) { print path ":" $2 ": only src/backend/cuda may include " target; bad = 1 }
    }
    else if (!(folder in allowed)) { print path ":" $2 ": folder " folder " is in no layer"; bad = 1 }
    else if (index(allowed[folder], " " to[1] " ") == 0) {
      print path ":" $2 ": " folder " may not include " target; bad = 1
    }
    # A mixer stands alone: what two share has a file of its own that is no mixer.
    if (folder == "mixers" && (target ~ /mixers\/(lla|parallax|softmax|sliding_window)\.h/)) {
      own = target; sub(/\.h$/, "", own)
      if (path !~ own && path !~ /mixers\/mixer\.cpp/) { print path ":" $2 ": a mixer includes " target; bad = 1 }
    }
  } else if (match(line, /<[^>]+>/)) {
    target = substr(line, RSTART + 1, RLENGTH - 2)
    for (h = 1; h <= headers; h++) {
      if (index(target, order[h]) != 1) continue
      count = split(home[order[h]], places, " "); ok = 0
      for (p = 1; p <= count; p++) if (index(path, places[p]) == 1) ok = 1
      if (!ok) { print path ":" $2 ": <" target "> belongs to " home[order[h]]; bad = 1 }
    }
  }
}
END { exit bad }' || bad=1

# Kernels include kernels, launcher headers no CUDA; only kernels/xpu knows PTX, launches and CUDA's
# headers, because everything else must also run in the emulator.
kernel_rule() {  # pattern, why; reads file:line:code
  while IFS=: read -r file line code; do
    echo "$file:$line: $2"
    bad=1
  done < <(grep -P "$1" || true)
}
code() {  # the given files' lines without // comments
  find "$@" -type f \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) \
    ! -path 'kernels/xpu/*' -exec awk '{ sub(/\/\/.*/, ""); print FILENAME ":" FNR ":" $0 }' {} +
}
kernel_rule '#include "(?!kernels/)' 'kernels include only kernels/' < <(code kernels)
kernel_rule '#include <(cuda|cublas|mma\.h|cub/|cooperative_groups)' \
  'only kernels/xpu includes headers of CUDA' < <(code kernels tests/kernels)
kernel_rule '(^|[^[:alnum:]_])(asm|__asm__)([^[:alnum:]_]|$)' \
  'inline assembly belongs into a wrapper of kernels/xpu' < <(code kernels tests/kernels)
kernel_rule '<<<' 'launch with xpu::launch' < <(code kernels tests/kernels src tools)
kernel_rule '__shared__' 'declare shared memory with XPU_SHARED or XPU_DYN_SHARED' \
  < <(code kernels tests/kernels src tools)
exit $bad
