// The one lock around every HDF5 call of the process. Some builds of the library keep unguarded
// global state, and a prefetch thread reads while a checkpoint is written. No HDF5 header here:
// only data/ and checkpoint/ may include that.
#pragma once

#include <mutex>

namespace lh {

/// Not recursive: take it once per public function, around all of its HDF5 calls.
inline std::mutex& hdf5_mutex() {
  static std::mutex mutex;
  return mutex;
}

}  // namespace lh
