#include "data/shard_hdf5.h"

#include <hdf5.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/shard_seal.h"
#include "storage/hdf5_handle.h"
#include "storage/hdf5_layout.h"
#include "storage/raw_file.h"

namespace lh {
namespace fs = std::filesystem;
using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "arrays are read as they lie on disk");

namespace {

class StructureReader {
 public:
  explicit StructureReader(const fs::path& path)
      : path_(path),
        access_(file_access()),
        file_(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access_), H5Fclose) {
    if (!file_.ok()) fail<IoError>("{}: not an HDF5 file: {}", path.string(), hdf5_reason());
  }

  int64_t integer_attribute(const char* name) const {
    Handle attribute = open_attribute(name);
    Handle type(H5Aget_type(attribute), H5Tclose);
    require_scalar(Handle(H5Aget_space(attribute), H5Sclose), "attribute", name);
    int64_t value = 0;
    if (H5Tget_class(type) != H5T_INTEGER || H5Aread(attribute, H5T_NATIVE_INT64, &value) < 0)
      fail_kind("attribute", name, "one integer");
    return value;
  }

  std::string text_attribute(const char* name) const {
    Handle attribute = open_attribute(name);
    Handle type(H5Aget_type(attribute), H5Tclose);
    require_scalar(Handle(H5Aget_space(attribute), H5Sclose), "attribute", name);
    std::string value = room_for_text(type, "attribute", name);
    if (H5Aread(attribute, type, value.data()) < 0)
      fail_kind("attribute", name, "a readable string");
    return value;
  }

  std::string text(const char* name) const {
    Handle data = open_dataset(name);
    Handle type(H5Dget_type(data), H5Tclose);
    require_scalar(Handle(H5Dget_space(data), H5Sclose), "dataset", name);
    std::string value = room_for_text(type, "dataset", name);
    if (H5Dread(data, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, value.data()) < 0)
      fail_kind("dataset", name, "a readable string");
    return value;
  }

  /// Position of the contiguous 1-d array `name`; sets its size and its index in `types`.
  int64_t array(const char* name, std::initializer_list<hid_t> types, const char* expected,
                int64_t& size, size_t& type_index) const {
    Handle data = open_dataset(name);
    Handle type(H5Dget_type(data), H5Tclose);
    Handle space(H5Dget_space(data), H5Sclose);
    Handle creation(H5Dget_create_plist(data), H5Pclose);
    type_index = 0;
    for (const hid_t candidate : types) {
      if (H5Tequal(type, candidate) > 0) break;
      ++type_index;
    }
    hsize_t extent = 0;
    if (type_index == types.size() || H5Sget_simple_extent_ndims(space) != 1 ||
        H5Sget_simple_extent_dims(space, &extent, nullptr) != 1 ||
        H5Pget_layout(creation) != H5D_CONTIGUOUS || H5Pget_external_count(creation) != 0)
      fail_kind("dataset", name, expected);
    // The library reports an undefined place for an array that has none, e.g. an empty one.
    const haddr_t begin = H5Dget_offset(data);
    if (extent == 0 || begin == HADDR_UNDEF || extent > uint64_t{1} << 56)
      fail_kind("dataset", name, "at least one element");
    size = static_cast<int64_t>(extent);
    return static_cast<int64_t>(begin);
  }

  [[noreturn]] void fail_kind(const char* what, const char* name, std::string_view expected) const {
    fail<IoError>("{}: {} '{}' of this token shard is not {}", path_.string(), what, name,
                  expected);
  }

 private:
  Handle open_attribute(const char* name) const {
    Handle attribute(H5Aopen(file_, name, H5P_DEFAULT), H5Aclose);
    if (!attribute.ok())
      fail<IoError>("{}: token shard without the attribute '{}'", path_.string(), name);
    return attribute;
  }
  Handle open_dataset(const char* name) const {
    Handle data(H5Dopen2(file_, name, H5P_DEFAULT), H5Dclose);
    if (!data.ok()) fail<IoError>("{}: token shard without the dataset '{}'", path_.string(), name);
    return data;
  }
  void require_scalar(const Handle& space, const char* what, const char* name) const {
    if (H5Sget_simple_extent_type(space) != H5S_SCALAR) fail_kind(what, name, "a single value");
  }
  std::string room_for_text(const Handle& type, const char* what, const char* name) const {
    const bool fixed = H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0;
    const size_t bytes = fixed ? H5Tget_size(type) : 0;
    if (!fixed || bytes > size_t{1} << 30) fail_kind(what, name, "a string of fixed length");
    return std::string(bytes, '\0');
  }

  const fs::path& path_;
  Handle access_;
  Handle file_;
};

std::string sources_to_json(const std::vector<SourceFile>& sources) {
  json list = json::array();
  for (const SourceFile& source : sources)
    list.push_back({{"name", source.name}, {"bytes", source.bytes}, {"digest", source.digest}});
  // A file name may hold any bytes; ill-formed ones are shown as U+FFFD.
  return list.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::vector<SourceFile> sources_from_json(const fs::path& path, const std::string& text) {
  std::vector<SourceFile> sources;
  try {
    for (const json& entry : json::parse(text))
      sources.push_back({entry.at("name").get<std::string>(), entry.at("bytes").get<int64_t>(),
                         entry.at("digest").get<std::string>()});
  } catch (const json::exception& error) {
    fail<IoError>(
        "{}: dataset 'sources' of this token shard is not a list of name, bytes and "
        "digest: {}",
        path.string(), error.what());
  }
  return sources;
}

}  // namespace

ShardLayout create_shard_structure(const fs::path& path, const ShardInfo& info,
                                   const std::string& tokenizer_json) {
  const std::string sources = sources_to_json(info.sources);
  ShardLayout layout;
  std::string structure;
  int64_t file_bytes = 0;
  {
    Hdf5Section section;
    Hdf5Layout file(path, {.user_block = kSealBytes, .structure_bytes = 1 << 13});
    file.attribute("format_version", kShardFormat);
    file.attribute("vocab_size", info.vocab_size);
    file.attribute("end_of_text", int64_t{info.end_of_text});
    file.attribute("text_bytes", info.text_bytes);
    file.attribute("tokenizer_digest", info.tokenizer_digest);
    file.attribute("content_digest", info.content_digest);
    file.text("tokenizer_json", tokenizer_json);
    file.text("sources", sources);
    const auto array = [&](const char* name, hid_t type, int64_t size) {
      return file.array(name, type, std::span(&size, 1));
    };
    layout.offsets_begin = array("document_offsets", H5T_STD_I64LE, info.documents + 1);
    layout.bytes_begin = array("document_bytes", H5T_STD_I64LE, info.documents);
    layout.tokens_begin =
        array("tokens", info.token_width == 2 ? H5T_STD_U16LE : H5T_STD_U32LE, info.tokens);
    structure = file.close(file_bytes);
  }
  RawFile file = RawFile::create(path);
  file.write_at(0, structure.data(), static_cast<int64_t>(structure.size()));
  file.resize(file_bytes);
  return layout;
}

ShardLayout read_shard_structure(const fs::path& path, ShardInfo& info,
                                 std::string& tokenizer_json) {
  std::string sources;
  ShardLayout layout;
  {
    Hdf5Section section;
    const StructureReader file(path);
    if (const int64_t format = file.integer_attribute("format_version"); format != kShardFormat)
      fail<IoError>("{}: token shard of format {}, this build reads format {}", path.string(),
                    format, kShardFormat);
    info.vocab_size = file.integer_attribute("vocab_size");
    const int64_t end_of_text = file.integer_attribute("end_of_text");
    info.text_bytes = file.integer_attribute("text_bytes");
    info.tokenizer_digest = file.text_attribute("tokenizer_digest");
    info.content_digest = file.text_attribute("content_digest");
    if (info.vocab_size < 1 || info.vocab_size > INT32_MAX)
      file.fail_kind("attribute", "vocab_size",
                     fmt::format("in 1..2^31-1 but {}", info.vocab_size));
    if (end_of_text < 0 || end_of_text >= info.vocab_size)
      file.fail_kind(
          "attribute", "end_of_text",
          fmt::format("a token of its vocabulary of {} but {}", info.vocab_size, end_of_text));
    info.end_of_text = static_cast<TokenId>(end_of_text);
    tokenizer_json = file.text("tokenizer_json");
    sources = file.text("sources");

    int64_t offsets = 0;
    size_t type = 0;
    layout.offsets_begin =
        file.array("document_offsets", {H5T_STD_I64LE}, "a contiguous int64 array", offsets, type);
    layout.bytes_begin = file.array("document_bytes", {H5T_STD_I64LE}, "a contiguous int64 array",
                                    info.documents, type);
    layout.tokens_begin = file.array("tokens", {H5T_STD_U16LE, H5T_STD_U32LE},
                                     "a contiguous uint16 or uint32 array", info.tokens, type);
    info.token_width = type == 0 ? 2 : 4;
    if (offsets != info.documents + 1)
      fail<IoError>("{}: {} document offsets for {} documents, expected {}", path.string(), offsets,
                    info.documents, info.documents + 1);
  }
  info.sources = sources_from_json(path, sources);
  return layout;
}

}  // namespace lh
