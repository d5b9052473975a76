// HDF5 identifiers that close themselves, and the settings that all files of ours share. For .cpp
// files only: it brings the library's header along.
#pragma once

#include <hdf5.h>

#include <mutex>
#include <string>
#include <utility>

#include "storage/hdf5_lock.h"

namespace lh {

/// Holds the HDF5 lock and keeps the library from printing its error stack.
class Hdf5Section {
 public:
  Hdf5Section() : lock_(hdf5_mutex()) { H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr); }

 private:
  std::lock_guard<std::mutex> lock_;
};

/// The innermost message of the library's error stack: the nearest to the cause.
inline std::string hdf5_reason() {
  std::string reason = "no reason given";
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned depth, const H5E_error2_t* entry, void* out) -> herr_t {
        if (depth == 0 && entry->desc != nullptr) *static_cast<std::string*>(out) = entry->desc;
        return 0;
      },
      &reason);
  return reason;
}

/// An HDF5 identifier that closes itself.
class Handle {
 public:
  Handle(hid_t id, herr_t (*closer)(hid_t)) : id_(id), close_(closer) {}
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Handle& operator=(Handle&&) = delete;
  operator hid_t() const { return id_; }  // NOLINT: stands for the identifier in library calls
  bool ok() const { return id_ >= 0; }
  herr_t close() { return close_(std::exchange(id_, -1)); }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

inline Handle file_access() {
  Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
  // Our files are replaced by rename and never changed, and some network file systems can't lock.
  H5Pset_file_locking(access, 0, 1);
  return access;
}

/// Properties of a new dataset. Times are left out: equal input must give equal bytes.
inline Handle dataset_creation() {
  Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_obj_track_times(creation, 0);
  return creation;
}

inline Handle fixed_string(size_t bytes) {
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type, bytes);
  H5Tset_strpad(type, H5T_STR_NULLPAD);  // NULLTERM would hide the last byte
  H5Tset_cset(type, H5T_CSET_UTF8);
  return type;
}

}  // namespace lh
