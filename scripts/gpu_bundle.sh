#!/usr/bin/env bash
# Builds the CUDA backend and its tests here for sm_90a and packs them, with the shared libraries they need, into
# gpu_bundle/ (ignored by git), for a machine that has a GPU and the CUDA toolkit's libraries but none of our
# packages. There, in a copy of this repository: gpu_bundle/run.sh [output folder].
set -euo pipefail
cd "$(dirname "$0")/.."
build=build/gpu
# Without oneDNN, whose library alone would fill the bundle.
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DLH_CUDA=ON -DLH_DNNL_LIBRARY=OFF \
  -DCMAKE_CUDA_ARCHITECTURES=90a-real \
  -DCMAKE_CXX_COMPILER_LAUNCHER=ccache -Wno-dev >/dev/null
cmake --build "$build" --target longhand cuda_tests device_tests kernel_test_xpu_plain
bundle=gpu_bundle
rm -rf "$bundle"
mkdir -p "$bundle/bin" "$bundle/lib" "$bundle/device" "$bundle/dumps"
cp "$build/tools/longhand" "$bundle/bin/"
cp "$build"/tests/*/test_*_cuda "$bundle/bin/"
cp "$build"/tests/kernels/device/*_test "$bundle/device/"
strip "$bundle"/bin/* "$bundle"/device/*
# The emulator's outputs, which the device's are compared with.
LH_XPU_DUMP=$PWD/$bundle/dumps "$build/tests/kernels/kernel_test_xpu_plain" >/dev/null
ldd "$bundle"/bin/* | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
  grep -vE '/(libc|libm|libdl|librt|libpthread|ld-linux[^/]*|libcublas[^/]*|libcuda[^/]*)\.so' |
  xargs -I{} cp -L {} "$bundle/lib/"
cat >"$bundle/run.sh" <<RUN
#!/usr/bin/env bash
# Wrapper conformance, all kernel tests, the CUDA backend and whole models, a short training run. Goes on after
# a failure and says at the end what failed.
set -uo pipefail
cd "\$(dirname "\$0")/.."
out=\${1:-gpu_results}
mkdir -p "\$out"
# Tests look for their golden files where the repository lay when they were built.
[ -e "$PWD" ] || { mkdir -p "$(dirname "$PWD")" && ln -s "\$PWD" "$PWD"; }
export LD_LIBRARY_PATH=\$PWD/gpu_bundle/lib:/usr/local/cuda/lib64:\${LD_LIBRARY_PATH:-}
export LH_XPU_DUMP=\$PWD/gpu_bundle/dumps
failed=""
step() {
  local name=\$1
  shift
  echo "== \$name"
  timeout 240 "\$@" >"\$out/\$name.log" 2>&1 || failed="\$failed \$name"
  tail -4 "\$out/\$name.log"
}
step doctor gpu_bundle/bin/longhand doctor
step conformance gpu_bundle/device/xpu_test
for test in gpu_bundle/device/*_test; do
  [ "\$test" = gpu_bundle/device/xpu_test ] || step "kernels_\$(basename "\$test")" "\$test"
done
for test in gpu_bundle/bin/test_*_cuda; do step "\$(basename "\$test")" "\$test"; done
step prepare gpu_bundle/bin/longhand data prepare README.md --split blank-lines \\
  --output runs/smoke/train.h5 --valid-output runs/smoke/valid.h5 --valid-fraction 0.1
step train gpu_bundle/bin/longhand train recipes/smoke/smoke_cpu.yaml --set run.device=cuda \\
  --set run.out_dir="\$out/smoke"
echo "failed:\${failed:- nothing}"
[ -z "\$failed" ]
RUN
chmod +x "$bundle/run.sh"
du -sh "$bundle"
