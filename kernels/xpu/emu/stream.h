// A stream of the emulated device: it runs what it is given at once, or records it for later, as
// cudaStreamBeginCapture does.
#pragma once
#include <functional>
#include <utility>
#include <vector>

struct CUstream_st {
  std::vector<std::function<void()>>* recording = nullptr;  // not null: work is kept, not run
};

namespace xpu::emu {

/// `stream` may be null: at once.
template <class Work>
void enqueue(CUstream_st* stream, Work&& work) {
  if (stream != nullptr && stream->recording != nullptr) {
    stream->recording->emplace_back(std::forward<Work>(work));
  } else {
    work();
  }
}

}  // namespace xpu::emu
