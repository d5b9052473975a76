#include "checkpoint/training_state.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/hash.h"
#include "checkpoint/state_seal.h"
#include "storage/hdf5_handle.h"
#include "storage/hdf5_layout.h"

namespace lh {
namespace {

hid_t hdf5_type(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return H5T_IEEE_F32LE;
    case DType::kF64:
      return H5T_IEEE_F64LE;
    case DType::kBF16:
      return H5T_STD_U16LE;  // the bits; the dtype attribute tells them apart
    case DType::kI32:
      return H5T_STD_I32LE;
    case DType::kI64:
      return H5T_STD_I64LE;
    case DType::kU8:
      return H5T_STD_U8LE;
  }
  return -1;
}

bool parse_dtype(const std::string& name, DType& dtype) {
  for (const DType candidate :
       {DType::kF32, DType::kBF16, DType::kF64, DType::kI32, DType::kI64, DType::kU8}) {
    if (name != dtype_name(candidate)) continue;
    dtype = candidate;
    return true;
  }
  return false;
}

/// A string of fixed length that `read` fills; nullopt when the type is another.
template <typename Read>
std::optional<std::string> read_string(const Handle& type, Read&& read) {
  if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) != 0 ||
      H5Tget_size(type) > size_t{1} << 28)
    return std::nullopt;
  std::string value(H5Tget_size(type), '\0');
  if (read(value.data()) < 0) return std::nullopt;
  return value;
}

std::optional<std::string> text_attribute(hid_t object, const char* name) {
  if (H5Aexists(object, name) <= 0) return std::nullopt;
  Handle attribute(H5Aopen(object, name, H5P_DEFAULT), H5Aclose);
  Handle space(H5Aget_space(attribute), H5Sclose);
  if (H5Sget_simple_extent_type(space) != H5S_SCALAR) return std::nullopt;
  Handle type(H5Aget_type(attribute), H5Tclose);
  return read_string(type, [&](char* into) { return H5Aread(attribute, type, into); });
}

std::optional<std::string> text_dataset(hid_t file, const char* name) {
  Handle data(H5Dopen2(file, name, H5P_DEFAULT), H5Dclose);
  if (!data.ok()) return std::nullopt;
  Handle space(H5Dget_space(data), H5Sclose);
  if (H5Sget_simple_extent_type(space) != H5S_SCALAR) return std::nullopt;
  Handle type(H5Dget_type(data), H5Tclose);
  return read_string(
      type, [&](char* into) { return H5Dread(data, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, into); });
}

herr_t collect_name(hid_t, const char* name, const H5L_info_t*, void* into) {
  static_cast<std::vector<std::string>*>(into)->emplace_back(name);
  return 0;
}

/// Room for everything that describes the tensors; the library needs about 1 KiB for each.
int64_t structure_bytes(const std::vector<StoredTensor>& tensors) {
  int64_t bytes = 1 << 14;
  for (const StoredTensor& tensor : tensors)
    bytes += 2048 + 4 * static_cast<int64_t>(tensor.name.size());
  return bytes;
}

}  // namespace

void write_training_state(const std::filesystem::path& path,
                          const std::map<std::string, std::string>& meta,
                          const std::vector<NamedTensor>& tensors) {
  write_training_state(path, meta, stored(tensors));
}

void write_training_state(const std::filesystem::path& path,
                          const std::map<std::string, std::string>& meta,
                          const std::vector<StoredTensor>& tensors) {
  RawFile file = RawFile::create(path);
  std::string structure;
  int64_t file_bytes = 0, structure_end = std::numeric_limits<int64_t>::max();
  {
    Hdf5Section section;
    Hdf5Layout layout(path,
                      {.user_block = kStateSealBytes, .structure_bytes = structure_bytes(tensors)});
    layout.text("meta", nlohmann::json(meta).dump());
    layout.group("tensors");
    for (const StoredTensor& tensor : tensors) {
      LH_CHECK(tensor.shape.numel() > 0 && tensor.name.find('/') == std::string::npos,
               "[state] {}: {} elements can't be stored", tensor.name, tensor.shape.numel());
      const std::string name = "tensors/" + tensor.name;
      const int64_t place = layout.array(name, hdf5_type(tensor.dtype), tensor.shape.sizes());
      structure_end = std::min(structure_end, place);
      const Tensor values = tensor.read().to(kCpuDevice);
      LH_CHECK(values.is_contiguous() && values.dtype() == tensor.dtype &&
                   values.numel() == tensor.shape.numel(),
               "[state] {}: {} can't be stored", tensor.name, values.str());
      const auto bytes = static_cast<int64_t>(values.bytes());
      file.write_at(place, values.raw(), bytes);
      layout.attribute_of(name, "dtype", dtype_name(tensor.dtype));
      layout.attribute_of(name, "digest", digest_of({values.raw(), values.bytes()}));
    }
    structure = layout.close(file_bytes);
  }
  if (tensors.empty()) structure_end = file_bytes;
  LH_CHECK(static_cast<int64_t>(structure.size()) <= structure_end || tensors.empty(),
           "[state] {} bytes of structure reach into the tensors", structure.size());
  structure.resize(static_cast<size_t>(structure_end), '\0');
  file.write_at(0, structure.data(), structure_end);
  file.resize(file_bytes);
  write_state_seal(file, structure_end);
}

TrainingStateFile::TrainingStateFile(const std::filesystem::path& path)
    : name_(path.string()), file_(RawFile::open_read(path)) {
  check_state_seal(file_, name_);
  read_structure();
}

void TrainingStateFile::read_structure() {
  Hdf5Section section;
  const auto bad = [&](const std::string& reason) {
    fail<IoError>("{}: not a usable training state: {}", name_, reason);
  };
  Handle access = file_access();
  Handle file(H5Fopen(name_.c_str(), H5F_ACC_RDONLY, access), H5Fclose);
  if (!file.ok()) bad(hdf5_reason());
  const auto json = nlohmann::json::parse(text_dataset(file, "meta").value_or(""), nullptr, false);
  if (!json.is_object()) bad("/meta is not a JSON object");
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string()) bad("/meta: '" + key + "' is not text");
    meta_[key] = value.get<std::string>();
  }
  Handle group(H5Gopen2(file, "tensors", H5P_DEFAULT), H5Gclose);
  std::vector<std::string> found;
  if (!group.ok() ||
      H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, nullptr, collect_name, &found) < 0)
    bad("it has no /tensors");
  for (const std::string& tensor : found) {
    Handle data(H5Dopen2(group, tensor.c_str(), H5P_DEFAULT), H5Dclose);
    if (!data.ok()) bad("tensor " + tensor + " is no dataset");
    Entry entry;
    const auto dtype = text_attribute(data, "dtype"), digest = text_attribute(data, "digest");
    if (!dtype || !digest || !parse_dtype(*dtype, entry.dtype))
      bad("tensor " + tensor + " has no dtype or digest");
    Handle type(H5Dget_type(data), H5Tclose), space(H5Dget_space(data), H5Sclose);
    Handle creation(H5Dget_create_plist(data), H5Pclose);
    const int rank = H5Sget_simple_extent_ndims(space);
    if (rank < 1 || rank > Shape::kMaxRank || H5Tequal(type, hdf5_type(entry.dtype)) <= 0 ||
        H5Pget_layout(creation) != H5D_CONTIGUOUS || H5Pget_external_count(creation) != 0)
      bad("tensor " + tensor + " is not a contiguous array of its dtype");
    hsize_t sizes[Shape::kMaxRank] = {};
    H5Sget_simple_extent_dims(space, sizes, nullptr);
    const haddr_t begin = H5Dget_offset(data);
    const auto file_bytes = static_cast<hsize_t>(file_.size());
    hsize_t bytes = dtype_size(entry.dtype);
    for (int i = 0; i < rank; ++i) {
      if (sizes[i] == 0 || sizes[i] > file_bytes / bytes) bad("tensor " + tensor + " is too large");
      bytes *= sizes[i];
    }
    if (begin == HADDR_UNDEF || begin > file_bytes - bytes)
      bad("tensor " + tensor + " lies outside the file");
    entry.shape = Shape(std::vector<int64_t>(sizes, sizes + rank));
    entry.digest = *digest;
    entry.begin = static_cast<int64_t>(begin);
    entry.bytes = static_cast<int64_t>(bytes);
    entries_.emplace(tensor, std::move(entry));
  }
}

std::vector<std::string> TrainingStateFile::names() const {
  std::vector<std::string> all;
  for (const auto& [name, entry] : entries_) all.push_back(name);
  return all;
}

void TrainingStateFile::check(const std::vector<StoredTensor>& wanted) const {
  std::string problems;
  for (const StoredTensor& tensor : wanted) {
    const auto found = entries_.find(tensor.name);
    if (found == entries_.end())
      problems += fmt::format("\n  {}: missing", tensor.name);
    else if (!(found->second.shape == tensor.shape) || found->second.dtype != tensor.dtype)
      problems += fmt::format("\n  {}: expected {}{}, got {}{}", tensor.name,
                              dtype_name(tensor.dtype), tensor.shape.str(),
                              dtype_name(found->second.dtype), found->second.shape.str());
  }
  if (!problems.empty())
    fail<IoError>("{} does not fit this recipe's model or optimizer:{}", name_, problems);
  for (const StoredTensor& tensor : wanted) {
    const Entry& entry = entries_.at(tensor.name);
    Digest digest;
    file_.digest(entry.begin, entry.begin + entry.bytes, digest);
    if (digest.hex() != entry.digest)
      fail<IoError>("{}: tensor {} was changed since it was saved (digest differs)", name_,
                    tensor.name);
  }
}

void TrainingStateFile::read(const std::string& name, Tensor& into) const {
  const Entry& entry = entries_.at(name);
  if (into.device().is_cpu()) {
    file_.read_at(entry.begin, into.raw(), entry.bytes);
    return;
  }
  const Tensor host = Tensor::empty(into.shape(), into.dtype());
  file_.read_at(entry.begin, host.raw(), entry.bytes);
  into.copy_bytes_from(host);
}

void TrainingStateFile::restore(const std::vector<NamedTensor>& targets) const {
  check(stored(targets));
  for (const NamedTensor& target : targets) {
    Tensor into = target.tensor;
    read(target.name, into);
  }
}

}  // namespace lh
