#include "storage/hdf5_layout.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "base/error.h"

namespace lh {

H5FD_file_image_callbacks_t Hdf5Layout::callbacks(Image* image) {
  return {
      [](size_t bytes, H5FD_file_image_op_t, void*) { return std::malloc(bytes); },
      [](void* to, const void* from, size_t bytes, H5FD_file_image_op_t, void*) {
        return std::memcpy(to, from, bytes);
      },
      [](void* memory, size_t bytes, H5FD_file_image_op_t, void* self) {
        void* moved = std::realloc(memory, bytes);
        if (moved != nullptr) static_cast<Image*>(self)->memory_bytes = bytes;
        return moved;
      },
      [](void* memory, H5FD_file_image_op_t op, void* self) -> herr_t {
        auto* into = static_cast<Image*>(self);
        if (op == H5FD_FILE_IMAGE_OP_FILE_CLOSE)
          into->content.assign(static_cast<const char*>(memory), into->memory_bytes);
        std::free(memory);
        return 0;
      },
      [](void* self) { return self; },
      [](void*) -> herr_t { return 0; },
      image,
  };
}

Handle Hdf5Layout::memory_access(int64_t structure_bytes) {
  Handle access = file_access();
  // Increments of one byte: the image ends where the last write did.
  H5Pset_fapl_core(access, /*increment=*/1, /*backing_store=*/0);
  H5FD_file_image_callbacks_t image_callbacks = callbacks(&image_);
  H5Pset_file_image_callbacks(access, &image_callbacks);
  // All of the structure in one block in front of the arrays. These take no memory: the library
  // grows the image only up to the last byte that it writes.
  H5Pset_meta_block_size(access, static_cast<hsize_t>(structure_bytes));
  return access;
}

Hdf5Layout::Hdf5Layout(const std::filesystem::path& path, const Options& options)
    : name_(path.string()),
      create_(H5Pcreate(H5P_FILE_CREATE), H5Pclose),
      access_(memory_access(options.structure_bytes)),
      file_((H5Pset_userblock(create_, static_cast<hsize_t>(options.user_block)),
             H5Fcreate(path.c_str(), H5F_ACC_TRUNC, create_, access_)),
            H5Fclose) {
  check(file_.ok());
}

void Hdf5Layout::attribute(const char* name, int64_t value) {
  Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  Handle attribute(H5Acreate2(file_, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT),
                   H5Aclose);
  check(attribute.ok() && H5Awrite(attribute, H5T_NATIVE_INT64, &value) >= 0);
}

void Hdf5Layout::attribute(const char* name, const std::string& value) {
  write_attribute(file_, name, value);
}

void Hdf5Layout::attribute_of(const std::string& dataset, const char* name,
                              const std::string& value) {
  Handle data(H5Dopen2(file_, dataset.c_str(), H5P_DEFAULT), H5Dclose);
  check(data.ok());
  write_attribute(data, name, value);
}

void Hdf5Layout::write_attribute(hid_t object, const char* name, const std::string& value) {
  Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  Handle type = fixed_string(value.size());
  Handle attribute(H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  check(attribute.ok() && H5Awrite(attribute, type, value.data()) >= 0);
}

void Hdf5Layout::group(const char* name) {
  Handle group(H5Gcreate2(file_, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Gclose);
  check(group.ok());
}

void Hdf5Layout::text(const char* name, const std::string& value) {
  Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  Handle type = fixed_string(value.size());
  Handle creation = dataset_creation();
  Handle data(H5Dcreate2(file_, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT), H5Dclose);
  check(data.ok() && H5Dwrite(data, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, value.data()) >= 0);
}

int64_t Hdf5Layout::array(const std::string& name, hid_t type, std::span<const int64_t> sizes) {
  const std::vector<hsize_t> extent(sizes.begin(), sizes.end());
  Handle space(H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr), H5Sclose);
  Handle creation = dataset_creation();
  H5Pset_layout(creation, H5D_CONTIGUOUS);
  H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY);
  H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER);
  Handle data(H5Dcreate2(file_, name.c_str(), type, space, H5P_DEFAULT, creation, H5P_DEFAULT),
              H5Dclose);
  check(data.ok());
  return static_cast<int64_t>(H5Dget_offset(data));
}

std::string Hdf5Layout::close(int64_t& size) {
  hsize_t bytes = 0;
  check(H5Fget_filesize(file_, &bytes) >= 0 && file_.close() >= 0);
  size = static_cast<int64_t>(bytes);
  image_.content.resize(std::min(image_.content.size(), static_cast<size_t>(bytes)));
  return std::move(image_.content);
}

void Hdf5Layout::check(bool ok) const {
  if (!ok) fail<IoError>("cannot lay out {}: {}", name_, hdf5_reason());
}

}  // namespace lh
