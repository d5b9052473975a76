#include "checkpoint/safetensors.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "backend/elementwise.h"
#include "base/file.h"
#include "base/text.h"

namespace lh {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian");

constexpr size_t kMaxHeader = 100'000'000;  // the limit of the reference implementation
constexpr size_t kMaxDepth = 8;             // a header needs three levels

struct FormatType {
  const char* name;
  size_t bytes;
};
constexpr FormatType kTypes[] = {{"F32", 4}, {"BF16", 2}, {"F64", 8}, {"F16", 2},
                                 {"I32", 4}, {"I64", 8},  {"U8", 1}};

size_t type_bytes(const std::string& name) {
  for (const FormatType& type : kTypes)
    if (name == type.name) return type.bytes;
  return 0;
}

const char* format_name(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "F32";
    case DType::kBF16:
      return "BF16";
    case DType::kF64:
      return "F64";
    case DType::kI32:
      return "I32";
    case DType::kI64:
      return "I64";
    case DType::kU8:
      return "U8";
  }
  return "";
}

DType tensor_type(const std::string& name) {
  if (name == "BF16") return DType::kBF16;
  if (name == "F64") return DType::kF64;
  if (name == "I32") return DType::kI32;
  if (name == "I64") return DType::kI64;
  if (name == "U8") return DType::kU8;
  return DType::kF32;  // F32, and F16 after conversion
}

float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const int exponent = half >> 10 & 0x1f;
  const uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0) {
    const float value = std::ldexp(static_cast<float>(mantissa), -24);
    return sign != 0 ? -value : value;
  }
  const uint32_t wide = exponent == 31 ? 0xffu : static_cast<uint32_t>(exponent + 112);
  return std::bit_cast<float>(sign | wide << 23 | mantissa << 13);
}

}  // namespace

SafetensorsFile::SafetensorsFile(std::filesystem::path path)
    : path_(std::move(path)), file_(RawFile::open_read(path_)) {
  const auto bad = [&](const std::string& reason) {
    fail<IoError>("{}: not a valid safetensors file: {}", path_.string(), reason);
  };
  uint64_t length = 0;
  const auto file_bytes = static_cast<uint64_t>(file_.size());
  if (file_bytes < 8) bad(fmt::format("{} bytes, shorter than its length field", file_bytes));
  file_.read_at(0, &length, 8);
  if (length > kMaxHeader || length > file_bytes - 8)
    bad(fmt::format("its header should have {} bytes, the file has {}", length, file_bytes));
  std::string header(length, '\0');
  file_.read_at(8, header.data(), static_cast<int64_t>(length));
  size_t depth = 0;
  // The parser recurses; a header of brackets alone must not exhaust the stack.
  const auto shallow = [&depth](int, nlohmann::json::parse_event_t event, nlohmann::json&) {
    using Event = nlohmann::json::parse_event_t;
    if (event == Event::object_start || event == Event::array_start) ++depth;
    if (event == Event::object_end || event == Event::array_end) --depth;
    if (depth > kMaxDepth) throw IoError("nesting is too deep");
    return true;
  };
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(header, shallow);
  } catch (const std::exception& error) {
    bad(fmt::format("its header is not JSON ({})", error.what()));
  }
  if (!json.is_object()) bad("its header is not a JSON object");

  const size_t data_begin = 8 + length;
  const size_t data_bytes = file_bytes - data_begin;
  std::vector<std::pair<size_t, size_t>> ranges;
  for (const auto& item : json.items()) {
    const std::string& name = item.key();
    const nlohmann::json& value = item.value();
    if (name == "__metadata__") {
      if (!value.is_object()) bad("__metadata__ is not an object");
      for (const auto& [key, text] : value.items()) {
        if (!text.is_string()) bad("__metadata__." + key + " is not text");
        metadata_[key] = text.get<std::string>();
      }
      continue;
    }
    const auto bad_tensor = [&](const std::string& reason) {
      bad(fmt::format("tensor '{}': {}", name, reason));
    };
    if (!value.is_object() || !value.contains("dtype") || !value["dtype"].is_string() ||
        !value.contains("shape") || !value["shape"].is_array() || !value.contains("data_offsets") ||
        !value["data_offsets"].is_array() || value["data_offsets"].size() != 2)
      bad_tensor("expected dtype, shape and two data_offsets");
    Entry entry;
    entry.dtype = value["dtype"].get<std::string>();
    const size_t width = type_bytes(entry.dtype);
    if (width == 0) bad_tensor(fmt::format("unsupported dtype '{}'", entry.dtype));
    std::vector<int64_t> sizes;
    size_t bytes = width;
    for (const auto& size : value["shape"]) {
      if (!size.is_number_unsigned() || size.get<uint64_t>() > INT64_MAX)
        bad_tensor("a size is not a non-negative integer");
      const auto n = size.get<uint64_t>();
      if (static_cast<unsigned __int128>(bytes) * n > data_bytes)
        bad_tensor("its shape asks for more bytes than the file has");
      bytes *= n;
      sizes.push_back(static_cast<int64_t>(n));
    }
    if (sizes.size() > static_cast<size_t>(Shape::kMaxRank))
      bad_tensor(
          fmt::format("{} dimensions; at most {} are supported", sizes.size(), Shape::kMaxRank));
    entry.shape = Shape(sizes);
    for (const auto& offset : value["data_offsets"])
      if (!offset.is_number_unsigned()) bad_tensor("data_offsets are not non-negative integers");
    entry.begin = value["data_offsets"][0].get<size_t>();
    entry.end = value["data_offsets"][1].get<size_t>();
    if (entry.begin > entry.end || entry.end > data_bytes)
      bad_tensor(
          fmt::format("bytes [{}, {}) lie outside the {} bytes of data (is the file "
                      "truncated?)",
                      entry.begin, entry.end, data_bytes));
    if (entry.end - entry.begin != bytes)
      bad_tensor(fmt::format("{}{} needs {} bytes, its data has {}", entry.dtype, entry.shape.str(),
                             bytes, entry.end - entry.begin));
    ranges.emplace_back(entry.begin, entry.end);
    entry.begin += data_begin;
    entry.end += data_begin;
    entries_.emplace(name, std::move(entry));
  }
  std::sort(ranges.begin(), ranges.end());
  size_t covered = 0;
  for (const auto& [begin, end] : ranges) {
    if (begin != covered) bad(fmt::format("bytes [{}, {}) overlap or leave a hole", begin, end));
    covered = end;
  }
  if (covered != data_bytes)
    bad(fmt::format("{} bytes of data belong to no tensor", data_bytes - covered));
}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> result;
  for (const auto& [name, entry] : entries_) result.push_back(name);
  return result;
}

const SafetensorsFile::Entry& SafetensorsFile::entry(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end())
    fail<IoError>("{}: no tensor '{}'{}", path_.string(), name, did_you_mean(name, names()));
  return found->second;
}

Tensor SafetensorsFile::read(const std::string& name) const {
  const Entry& from = entry(name);
  const auto begin = static_cast<int64_t>(from.begin),
             bytes = static_cast<int64_t>(from.end) - begin;
  Tensor result = Tensor::empty(from.shape, tensor_type(from.dtype));
  if (from.dtype != "F16") {
    file_.read_at(begin, result.raw(), bytes);
    return result;
  }
  std::vector<uint16_t> halves(static_cast<size_t>(result.numel()));
  file_.read_at(begin, halves.data(), bytes);
  std::transform(halves.begin(), halves.end(), result.span<float>().begin(), half_to_float);
  return result;
}

bool SafetensorsFile::is_floating(const std::string& name) const {
  return lh::is_floating(tensor_type(entry(name).dtype));
}

std::string SafetensorsFile::describe(const std::string& name) const {
  return entry(name).dtype + entry(name).shape.str();
}

void SafetensorsFile::read_into(const std::string& name, Tensor into) const {
  const Tensor from = read(name);
  LH_CHECK(from.shape() == into.shape() && is_floating(name) && lh::is_floating(into.dtype()),
           "[safetensors] {}: expected {}, got {}", name, into.str(), describe(name));
  Tensor host =
      into.device().is_cpu() ? into : Tensor::empty(into.shape(), into.dtype());
  LH_DISPATCH(kCpuDevice, "read_into", copy(from, host));
  if (!into.device().is_cpu()) into.copy_bytes_from(host);
}

void write_safetensors(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  write_safetensors(path, stored(tensors), metadata);
}

void write_safetensors(const std::filesystem::path& path, const std::vector<StoredTensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  size_t at = 0;
  for (const StoredTensor& tensor : tensors) {
    const auto sizes = tensor.shape.sizes();
    header[tensor.name] = {{"dtype", format_name(tensor.dtype)},
                           {"shape", std::vector<int64_t>(sizes.begin(), sizes.end())},
                           {"data_offsets", {at, at + tensor.bytes()}}};
    at += tensor.bytes();
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // data starts at a multiple of 8, as in the format
  write_atomically(path, [&](const std::filesystem::path& temporary) {
    RawFile file = RawFile::create(temporary);
    const uint64_t length = text.size();
    file.write_at(0, &length, 8);
    file.write_at(8, text.data(), static_cast<int64_t>(length));
    auto place = static_cast<int64_t>(8 + length);
    for (const StoredTensor& tensor : tensors) {
      const Tensor values = tensor.read();
      LH_CHECK(values.is_contiguous() && values.dtype() == tensor.dtype &&
                   values.numel() == tensor.shape.numel(),
               "[safetensors] {}: {} can't be stored", tensor.name, values.str());
      file.write_at(place, values.to(kCpuDevice).raw(), static_cast<int64_t>(tensor.bytes()));
      place += static_cast<int64_t>(tensor.bytes());
    }
  });
}

}  // namespace lh
