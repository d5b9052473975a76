#include "checkpoint/training_state.h"

#include <hdf5.h>

#include <cstring>

#include "base/hash.h"
#include "storage/hdf5_lock.h"

namespace lh {
namespace {

constexpr const char* kFormat = "longhand training state 1";

/// An HDF5 identifier that closes itself.
class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  hid_t get() const { return id_; }
  bool ok() const { return id_ >= 0; }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

hid_t hdf5_type(DType dtype) {
  switch (dtype) {
    case DType::kF32: return H5T_IEEE_F32LE;
    case DType::kF64: return H5T_IEEE_F64LE;
    case DType::kBF16: return H5T_STD_U16LE;  // the bits; the dtype attribute tells them apart
    case DType::kI32: return H5T_STD_I32LE;
    case DType::kI64: return H5T_STD_I64LE;
    case DType::kU8: return H5T_STD_U8LE;
  }
  return -1;
}

bool parse_dtype(const std::string& name, DType& dtype) {
  for (const DType candidate : {DType::kF32, DType::kBF16, DType::kF64, DType::kI32, DType::kI64,
                                DType::kU8}) {
    if (name != dtype_name(candidate)) continue;
    dtype = candidate;
    return true;
  }
  return false;
}

/// Text attributes of one object, of any length.
bool write_text(hid_t object, const std::string& name, const std::string& value) {
  const Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type.get(), value.size() + 1);
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Handle attribute(
      H5Acreate2(object, name.c_str(), type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT),
      H5Aclose);
  return attribute.ok() && H5Awrite(attribute.get(), type.get(), value.c_str()) >= 0;
}

bool read_text(hid_t object, const char* name, std::string& value) {
  if (H5Aexists(object, name) <= 0) return false;
  const Handle attribute(H5Aopen(object, name, H5P_DEFAULT), H5Aclose);
  if (!attribute.ok()) return false;
  const Handle type(H5Aget_type(attribute.get()), H5Tclose);
  if (!type.ok() || H5Tget_class(type.get()) != H5T_STRING ||
      H5Tis_variable_str(type.get()) != 0)
    return false;
  const size_t size = H5Tget_size(type.get());
  if (size > (size_t{1} << 26)) return false;
  std::string buffer(size + 1, '\0');
  if (H5Aread(attribute.get(), type.get(), buffer.data()) < 0) return false;
  value = buffer.c_str();
  return true;
}

herr_t collect_name(hid_t, const char* name, const H5L_info_t*, void* into) {
  static_cast<std::vector<std::string>*>(into)->emplace_back(name);
  return 0;
}

herr_t collect_attribute(hid_t, const char* name, const H5A_info_t*, void* into) {
  static_cast<std::vector<std::string>*>(into)->emplace_back(name);
  return 0;
}

std::string tensor_digest(const Tensor& tensor) {
  return digest_of({tensor.raw(), tensor.bytes()});
}

}  // namespace

void write_training_state(const std::filesystem::path& path, const TrainingState& state) {
  const std::lock_guard lock(hdf5_mutex());
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // errors are reported by us, not on stderr
  const auto failed = [&](const std::string& what) {
    fail<IoError>("cannot write {} to {}: is the disk full?", what, path.string());
  };
  const Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
  if (!file.ok()) fail<IoError>("cannot create {}", path.string());
  if (!write_text(file.get(), "format", kFormat)) failed("the format");
  {
    const Handle meta(H5Gcreate2(file.get(), "meta", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                      H5Gclose);
    for (const auto& [key, value] : state.meta)
      if (!meta.ok() || !write_text(meta.get(), key, value)) failed(key);
  }
  const Handle group(H5Gcreate2(file.get(), "tensors", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                     H5Gclose);
  // Without time stamps equal states are equal files.
  const Handle create(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_obj_track_times(create.get(), false);
  for (const NamedTensor& named : state.tensors) {
    std::vector<hsize_t> sizes;
    for (const int64_t size : named.tensor.shape().sizes())
      sizes.push_back(static_cast<hsize_t>(size));
    const Handle space(H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr),
                       H5Sclose);
    const hid_t type = hdf5_type(named.tensor.dtype());
    const Handle set(H5Dcreate2(group.get(), named.name.c_str(), type, space.get(), H5P_DEFAULT,
                                create.get(), H5P_DEFAULT),
                     H5Dclose);
    if (!set.ok() ||
        H5Dwrite(set.get(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, named.tensor.raw()) < 0 ||
        !write_text(set.get(), "dtype", dtype_name(named.tensor.dtype())) ||
        !write_text(set.get(), "digest", tensor_digest(named.tensor)))
      failed(named.name);
  }
  if (H5Fflush(file.get(), H5F_SCOPE_GLOBAL) < 0) failed("the last bytes");
}

TrainingState read_training_state(const std::filesystem::path& path) {
  const std::lock_guard lock(hdf5_mutex());
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  const auto bad = [&](const std::string& reason) {
    fail<IoError>("{}: not a usable training state: {}", path.string(), reason);
  };
  const Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  if (!file.ok()) bad("missing, truncated or not HDF5");
  std::string format;
  if (!read_text(file.get(), "format", format) || format != kFormat)
    bad(fmt::format("expected format '{}', got '{}'", kFormat, format));
  TrainingState state;
  const Handle meta(H5Gopen2(file.get(), "meta", H5P_DEFAULT), H5Gclose);
  std::vector<std::string> keys;
  if (!meta.ok() ||
      H5Aiterate2(meta.get(), H5_INDEX_NAME, H5_ITER_INC, nullptr, collect_attribute, &keys) < 0)
    bad("it has no /meta");
  for (const std::string& key : keys)
    if (!read_text(meta.get(), key.c_str(), state.meta[key])) bad("/meta/" + key + " is damaged");

  const Handle group(H5Gopen2(file.get(), "tensors", H5P_DEFAULT), H5Gclose);
  std::vector<std::string> names;
  if (!group.ok() ||
      H5Literate(group.get(), H5_INDEX_NAME, H5_ITER_INC, nullptr, collect_name, &names) < 0)
    bad("it has no /tensors");
  for (const std::string& name : names) {
    const Handle set(H5Dopen2(group.get(), name.c_str(), H5P_DEFAULT), H5Dclose);
    std::string type_text, digest;
    DType dtype;
    if (!set.ok() || !read_text(set.get(), "dtype", type_text) ||
        !read_text(set.get(), "digest", digest) || !parse_dtype(type_text, dtype))
      bad("tensor " + name + " has no dtype or digest");
    const Handle space(H5Dget_space(set.get()), H5Sclose);
    const int rank = H5Sget_simple_extent_ndims(space.get());
    if (rank < 0 || rank > Shape::kMaxRank) bad("tensor " + name + " has no simple shape");
    hsize_t sizes[Shape::kMaxRank] = {};
    H5Sget_simple_extent_dims(space.get(), sizes, nullptr);
    std::vector<int64_t> shape(sizes, sizes + rank);
    const size_t stored = static_cast<size_t>(H5Dget_storage_size(set.get()));
    Shape tensor_shape(shape);
    if (static_cast<size_t>(tensor_shape.numel()) * dtype_size(dtype) != stored)
      bad("tensor " + name + " has missing data");
    Tensor tensor = Tensor::empty(tensor_shape, dtype);
    if (H5Dread(set.get(), hdf5_type(dtype), H5S_ALL, H5S_ALL, H5P_DEFAULT, tensor.raw()) < 0)
      bad("tensor " + name + " can't be read");
    if (tensor_digest(tensor) != digest) bad("tensor " + name + " was changed: its digest differs");
    state.tensors.push_back({name, tensor});
  }
  return state;
}

void restore_tensors(const TrainingState& state, const std::vector<NamedTensor>& targets,
                     const std::string& file) {
  std::map<std::string, const Tensor*> have;
  for (const NamedTensor& named : state.tensors) have[named.name] = &named.tensor;
  std::string problems;
  for (const NamedTensor& target : targets) {
    const auto found = have.find(target.name);
    if (found == have.end())
      problems += fmt::format("\n  {}: missing", target.name);
    else if (!(found->second->shape() == target.tensor.shape()) ||
             found->second->dtype() != target.tensor.dtype())
      problems += fmt::format("\n  {}: expected {}, got {}", target.name, target.tensor.str(),
                              found->second->str());
  }
  if (!problems.empty())
    fail<IoError>("{} does not fit this recipe's model or optimizer:{}", file, problems);
  for (const NamedTensor& target : targets)
    std::memcpy(target.tensor.raw(), have[target.name]->raw(), target.tensor.bytes());
}

}  // namespace lh
