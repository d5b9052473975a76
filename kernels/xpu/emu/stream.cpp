// Apart from the header, so that atomics are not compiled into kernels that the race detector watches.
#include "kernels/xpu/emu/stream.h"

namespace xpu::emu {

void finish(const CUstream_st& stream) {
  for (int left = stream.outside; left > 0; left = stream.outside) stream.outside.wait(left);
}

}  // namespace xpu::emu
