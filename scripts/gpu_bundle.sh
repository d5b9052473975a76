#!/usr/bin/env bash
# Builds the CUDA backend, its tests and the benchmark here for sm_90a and packs them, with the shared libraries they
# need, into gpu_bundle/ (ignored by git; at most 60 MiB), for a machine that has a GPU and the CUDA toolkit's
# libraries but none of our packages. There, in a copy of this repository:
#   gpu_bundle/run.sh [FOLDER [STAGE...]]   results into FOLDER; stages: tests train bench (default: all)
set -euo pipefail
cd "$(dirname "$0")/.."
build=build/gpu
# Without oneDNN and NCCL, of which each library alone would fill the bundle.
configure() {  # configure FOLDER OPTION...
  local folder=$1
  shift
  cmake -S . -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=Release -DLH_CUDA=ON -DLH_DNNL_LIBRARY=OFF \
    -DCMAKE_CUDA_ARCHITECTURES=90a-real -DCMAKE_CXX_COMPILER_LAUNCHER=ccache -Wno-dev "$@" >/dev/null
}
configure "$build" -DLH_NCCL_LIBRARY=OFF
cmake --build "$build" --target longhand cuda_tests device_tests kernel_test_xpu_plain
# The test of NCCL alone is linked with it; there it takes the library that PyTorch brings.
configure "$build/nccl"
nccl_tests=()
if grep -q '^LH_NCCL_LIBRARY:.*/' "$build/nccl/CMakeCache.txt"; then
  cmake --build "$build/nccl" --target test_dist_nccl
  nccl_tests=("$build/nccl/tests/dist/test_dist_nccl")
else
  echo "gpu_bundle: no NCCL here, so its test stays behind"
fi
bundle=gpu_bundle
limit_mib=60
rm -rf "$bundle"
mkdir -p "$bundle/payload/bin" "$bundle/payload/lib" "$bundle/payload/device" "$bundle/payload/dumps"
payload=$bundle/payload
cp "$build/tools/longhand" "$payload/bin/"
cp "$build"/tests/*/test_*_cuda "$build"/tests/*/test_*_cudnn "${nccl_tests[@]}" "$payload/bin/"
cp "$build"/tests/kernels/device/*_test "$payload/device/"
strip "$payload"/bin/* "$payload"/device/*
# The emulator's outputs, which the device's are compared with.
LH_XPU_DUMP=$PWD/$payload/dumps "$build/tests/kernels/kernel_test_xpu_plain" >/dev/null
ldd "$payload"/bin/* | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
  grep -vE '/(libc|libm|libdl|librt|libpthread|ld-linux[^/]*|libcublas[^/]*|libcudnn[^/]*|libcuda[^/]*|libnccl[^/]*)\.so' |
  xargs -I{} cp -L {} "$payload/lib/"
unpacked=$(du -sm "$payload" | cut -f1)
tar -C "$payload" --sort=name -cf - bin lib device dumps | xz -9 -T1 >"$bundle/payload.tar.xz"
rm -rf "$payload"
cat >"$bundle/run.sh" <<RUN
#!/usr/bin/env bash
# Wrapper conformance, all kernel tests, the CUDA backend and whole models (tests); a short training run (train);
# Longhand and PyTorch side by side (bench). Goes on after a failure and says at the end what failed.
#   gpu_bundle/run.sh [FOLDER [STAGE...]]
set -uo pipefail
cd "\$(dirname "\$0")/.."
out=\${1:-gpu_results}
shift || true
stages=" \${*:-tests train bench} "
mkdir -p "\$out"
if [ ! -e gpu_bundle/payload/bin/longhand ]; then
  mkdir -p gpu_bundle/payload
  tar -C gpu_bundle/payload -xJf gpu_bundle/payload.tar.xz 2>/dev/null || python3 -c 'import tarfile
tarfile.open("gpu_bundle/payload.tar.xz", "r:xz").extractall("gpu_bundle/payload")' || exit 1
fi
payload=\$PWD/gpu_bundle/payload
# Tests look for their golden files where the repository lay when they were built.
[ -e "$PWD" ] || { mkdir -p "$(dirname "$PWD")" && ln -s "\$PWD" "$PWD"; }
libraries=\${LD_LIBRARY_PATH:-}
export LD_LIBRARY_PATH=\$payload/lib:/usr/local/cuda/lib64:\$libraries
export LH_XPU_DUMP=\$payload/dumps
failed=""
step() {  # step NAME SECONDS COMMAND...
  local name=\$1 seconds=\$2
  shift 2
  echo "== \$name"
  timeout "\$seconds" "\$@" >"\$out/\$name.log" 2>&1 || failed="\$failed \$name"
  tail -4 "\$out/\$name.log"
}
wanted() { [[ \$stages == *" \$1 "* ]]; }
step doctor 60 "\$payload/bin/longhand" doctor
if wanted tests; then
  step conformance 240 "\$payload/device/xpu_test"
  for test in "\$payload"/device/*_test; do
    [ "\$test" = "\$payload/device/xpu_test" ] || step "kernels_\$(basename "\$test")" 240 "\$test"
  done
  nccl=\$(ldconfig -p 2>/dev/null | awk '/libnccl.so.2/ {print \$NF; exit}')
  [ -n "\$nccl" ] || nccl=\$(python3 -c 'import glob, site, sys
for folder in site.getsitepackages() + sys.path:
    for file in glob.glob(folder + "/nvidia/nccl/lib/libnccl.so.2"): print(file); raise SystemExit')
  for test in "\$payload"/bin/test_*; do
    name=\$(basename "\$test")
    if [ "\$name" != test_dist_nccl ]; then
      step "\$name" 240 "\$test"
    elif [ -n "\$nccl" ]; then
      step "\$name" 240 env LD_LIBRARY_PATH="\$LD_LIBRARY_PATH:\$(dirname "\$nccl")" "\$test"
    else
      echo "== \$name SKIPPED: no libnccl.so.2 here"
    fi
  done
fi
if wanted train; then
  step prepare 60 "\$payload/bin/longhand" data prepare README.md --split blank-lines \\
    --output runs/smoke/train.h5 --valid-output runs/smoke/valid.h5 --valid-fraction 0.1
  step train 240 "\$payload/bin/longhand" train recipes/smoke/smoke_cpu.yaml --set run.device=cuda \\
    --set run.out_dir="\$out/smoke"
fi
if wanted bench; then
  # PyTorch brings its own CUDA libraries, so ours are for longhand alone.
  printf '#!/bin/sh\nLD_LIBRARY_PATH="%s" exec "%s" "\$@"\n' "\$LD_LIBRARY_PATH" "\$payload/bin/longhand" \\
    >"\$payload/longhand.sh"
  chmod +x "\$payload/longhand.sh"
  step bench 3000 env LD_LIBRARY_PATH="\$libraries" LONGHAND="\$payload/longhand.sh" \\
    scripts/bench_gpu.sh "\$out/bench"
fi
echo "failed:\${failed:- nothing}"
[ -z "\$failed" ]
RUN
chmod +x "$bundle/run.sh"
size=$(du -sk "$bundle" | cut -f1)
echo "gpu_bundle: $(((size + 1023) / 1024)) MiB ($unpacked MiB unpacked), at most $limit_mib MiB"
[ "$size" -le $((limit_mib * 1024)) ] || {
  echo "gpu_bundle: too large for the machine it is meant for" >&2
  exit 1
}
