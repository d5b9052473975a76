// A stream of the emulated device: it runs what it is given at once, or records it for later, as
// cudaStreamBeginCapture does. Only what something outside the emulator does on it, as NCCL, goes on by itself.
#pragma once
#include <atomic>
#include <functional>
#include <utility>
#include <vector>

struct CUstream_st {
  std::vector<std::function<void()>>* recording = nullptr;  // not null: work is kept, not run
  std::atomic<int> outside = 0;  // pieces of work that something outside the emulator has not done yet; notifies
};

namespace xpu::emu {

/// Returns when the stream has nothing left to do.
void finish(const CUstream_st& stream);

/// `stream` may be null: at once.
template <class Work>
void enqueue(CUstream_st* stream, Work&& work) {
  if (stream != nullptr && stream->recording != nullptr) {
    stream->recording->emplace_back(std::forward<Work>(work));
  } else {
    if (stream != nullptr) finish(*stream);
    work();
  }
}

}  // namespace xpu::emu
