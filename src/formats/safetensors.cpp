#include "moeweld/formats/safetensors.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "moeweld/base/checked.h"
#include "moeweld/base/error.h"
#include "moeweld/base/text.h"
#include "moeweld/formats/json.h"

namespace moeweld::formats {
namespace {

constexpr std::size_t kMaxHeaderProblems = 20;

std::string number(std::uint64_t value) { return std::to_string(value); }

/// Checks one header, collecting what is wrong.
class HeaderParser {
 public:
  HeaderParser(std::uint64_t data_begin, std::uint64_t data_size_bytes, const std::string& path)
      : data_size_bytes_(data_size_bytes), path_(path) {
    header_.data_begin = data_begin;
  }

  SafetensorsHeader parse(const Json& json) {
    header_.tensors.reserve(json.size());
    for (const auto& [key, value] : json.get_ref<const Json::object_t&>()) {
      if (key == "__metadata__") {
        parse_metadata(value);
      } else {
        parse_tensor(key, value);
      }
    }
    if (all_offsets_known_) check_layout();
    report_past_end();
    throw_if_any();
    return std::move(header_);
  }

 private:
  void add_problem(const std::string& tensor, std::string message, ErrorCode code = ErrorCode::kInvalidInput) {
    ++num_problems_;
    if (num_problems_ <= kMaxHeaderProblems) problems_.add(Problem{code, std::move(message), path_, 0, tensor});
  }

  /// A file that was cut is one problem, however many tensors lie behind the cut.
  void report_past_end() {
    if (num_past_end_ == 0) return;
    std::string message = "has data_offsets that end at " + number(past_end_.second) + ", but the file holds only " +
                          number(data_size_bytes_) + " bytes of tensor data";
    if (num_past_end_ > 1) message += " (so with " + number(num_past_end_ - 1) + " more; the last ends at " + number(furthest_end_) + ")";
    add_problem(past_end_.first, message + ". The file is damaged or was cut; compare its size with the source");
  }

  void throw_if_any() {
    if (num_problems_ > kMaxHeaderProblems) {
      problems_.add(Problem{ErrorCode::kInvalidInput,
                            "the header has " + number(num_problems_ - kMaxHeaderProblems) + " more problems of this kind", path_, 0, ""});
    }
    problems_.throw_if_any();
  }

  void parse_metadata(const Json& value) {
    if (!value.is_object()) {
      add_problem("", std::string("__metadata__ is of type ") + value.type_name() + ", not an object of strings");
      return;
    }
    for (const auto& [key, text] : value.get_ref<const Json::object_t&>()) {
      if (text.is_string()) {
        header_.metadata.emplace_back(key, text.get<std::string>());
      } else {
        add_problem("", "__metadata__ has the key '" + printable(key) + "' of type " + text.type_name() + ", not a string");
      }
    }
  }

  void parse_tensor(const std::string& name, const Json& value) {
    SafetensorsTensor tensor;
    tensor.name = name;
    if (name.empty()) add_problem("", "a tensor in the header has an empty name");
    if (!value.is_object()) {
      add_problem(name,
                  std::string("is of type ") + value.type_name() + " in the header, not an object with dtype, shape and data_offsets");
      all_offsets_known_ = false;
      return;
    }
    const auto dtype = parse_dtype(name, value);
    const auto shape = parse_shape(name, value);
    if (shape) tensor.shape = *shape;
    if (!parse_offsets(name, value, tensor)) {
      all_offsets_known_ = false;
      return;
    }
    if (dtype) {
      tensor.dtype = *dtype;
      if (shape) check_size(tensor);
    }
    header_.tensors.push_back(std::move(tensor));
  }

  static const Json* member(const Json& object, const char* key) {
    const auto found = object.find(key);
    return found == object.end() ? nullptr : &*found;
  }

  std::optional<DType> parse_dtype(const std::string& name, const Json& value) {
    const Json* dtype = member(value, "dtype");
    if (dtype == nullptr || !dtype->is_string()) {
      add_problem(name, dtype == nullptr ? "has no dtype in the header" : std::string("has a dtype of type ") + dtype->type_name());
      return std::nullopt;
    }
    const auto& text = dtype->get_ref<const std::string&>();
    const auto known = dtype_from_safetensors(text);
    if (!known) {
      add_problem(name,
                  "has dtype '" + printable(text) +
                      "', which this version does not read. It reads F64, F32, F16, BF16, F8_E4M3, F8_E5M2, I8 to I64, U8 to U64 and BOOL; "
                      "convert the model to one of these first, for instance with torch to bfloat16",
                  ErrorCode::kUnsupported);
    }
    return known;
  }

  std::optional<Shape> parse_shape(const std::string& name, const Json& value) {
    const Json* shape = member(value, "shape");
    if (shape == nullptr || !shape->is_array()) {
      add_problem(name, shape == nullptr ? "has no shape in the header" : std::string("has a shape of type ") + shape->type_name());
      return std::nullopt;
    }
    Shape result;
    result.reserve(shape->size());
    for (const Json& extent : *shape) {
      if (!extent.is_number_unsigned()) {
        add_problem(name, "has the extent " + printable(extent.dump(), 60) + " in its shape; extents are integers from 0 to 2^64 - 1");
        return std::nullopt;
      }
      result.push_back(extent.get<std::uint64_t>());
    }
    return result;
  }

  // Whether begin and end are usable for checking the layout.
  bool parse_offsets(const std::string& name, const Json& value, SafetensorsTensor& tensor) {
    const Json* offsets = member(value, "data_offsets");
    if (offsets == nullptr) {
      add_problem(name, "has no data_offsets in the header");
      return false;
    }
    if (!offsets->is_array() || offsets->size() != 2 || !(*offsets)[0].is_number_unsigned() || !(*offsets)[1].is_number_unsigned()) {
      add_problem(name, "has data_offsets " + printable(offsets->dump(), 60) + "; they are two integers from 0 to 2^64 - 1");
      return false;
    }
    const auto begin = (*offsets)[0].get<std::uint64_t>();
    const auto end = (*offsets)[1].get<std::uint64_t>();
    if (begin > end) {
      add_problem(name, "has reversed data_offsets: they begin at " + number(begin) + " and end at " + number(end));
      return false;
    }
    if (end > data_size_bytes_) {
      if (num_past_end_++ == 0) past_end_ = {name, end};
      furthest_end_ = std::max(furthest_end_, end);
      return false;
    }
    tensor.begin = header_.data_begin + begin;
    tensor.end = header_.data_begin + end;
    return true;
  }

  void check_size(const SafetensorsTensor& tensor) {
    const std::string what = "is " + std::string(moeweld::name(tensor.dtype)) + " " + to_string(tensor.shape);
    std::uint64_t count = 0;
    try {
      count = num_elements(tensor.shape);
    } catch (const Error&) {
      add_problem(tensor.name, what + ", more than 2^64 - 1 = " + number(UINT64_MAX) + " elements");
      return;
    }
    const auto size_bytes_wanted = checked_multiply<std::uint64_t>(count, size_bytes(tensor.dtype));
    if (!size_bytes_wanted) {
      add_problem(tensor.name, what + ", " + number(count) + " elements of " + number(size_bytes(tensor.dtype)) +
                                   " bytes: more than 2^64 - 1 = " + number(UINT64_MAX) + " bytes");
    } else if (*size_bytes_wanted != tensor.end - tensor.begin) {
      add_problem(tensor.name, what + " = " + number(*size_bytes_wanted) + " bytes, but its data_offsets span " +
                                   number(tensor.end - tensor.begin) +
                                   " bytes. The file is damaged or was cut; compare its size with the source");
    }
  }

  void check_layout() {
    // Empty tensors first where several begin at one place: they end there, too.
    std::stable_sort(header_.tensors.begin(), header_.tensors.end(), [](const SafetensorsTensor& a, const SafetensorsTensor& b) {
      return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
    });
    std::uint64_t expected = header_.data_begin;
    const SafetensorsTensor* previous = nullptr;
    for (const SafetensorsTensor& tensor : header_.tensors) {
      const std::uint64_t begin = tensor.begin - header_.data_begin;
      const std::uint64_t previous_end = expected - header_.data_begin;
      if (tensor.begin < expected) {
        add_problem(tensor.name, "overlaps tensor '" + printable(previous->name) + "': it begins at offset " + number(begin) +
                                     ", but that one ends at " + number(previous_end));
      } else if (tensor.begin > expected) {
        add_problem(tensor.name, "begins at offset " + number(begin) + ", but the data before it ends at " + number(previous_end) +
                                     ": the hole between belongs to no tensor");
      }
      if (tensor.end >= expected) {
        expected = tensor.end;
        previous = &tensor;
      }
    }
    if (expected - header_.data_begin != data_size_bytes_) {
      add_problem("", "the tensors end at offset " + number(expected - header_.data_begin) + ", but the file holds " +
                          number(data_size_bytes_) + " bytes of tensor data: the bytes left over belong to no tensor");
    }
  }

  std::uint64_t data_size_bytes_;
  const std::string& path_;
  SafetensorsHeader header_;
  ProblemList problems_;
  std::size_t num_problems_ = 0;
  bool all_offsets_known_ = true;
  std::uint64_t num_past_end_ = 0;
  std::pair<std::string, std::uint64_t> past_end_;  ///< the first one's name and end
  std::uint64_t furthest_end_ = 0;
};

// What people find where they expected a safetensors file.
std::string guess_of_content(std::span<const std::byte> first_8_bytes) {
  const std::string_view text(reinterpret_cast<const char*>(first_8_bytes.data()), first_8_bytes.size());
  if (text == "version ") return " It looks like a Git LFS pointer: fetch the file itself with 'git lfs pull'.";
  if (text.substr(0, 4) == "PK\x03\x04") return " It looks like a zip archive, as torch.save writes: convert it to safetensors.";
  if (text.substr(0, 4) == "GGUF") return " It looks like a GGUF file: use the safetensors version of the model.";
  if (text.substr(0, 1) == "<") return " It looks like a web page that was saved instead of the file.";
  if (text.substr(0, 3) == "\xef\xbb\xbf") return " It starts with a byte order mark, as a text file does.";
  return "";
}

std::string quoted(const std::string& text) {
  if (!is_utf8(text)) throw Error(ErrorCode::kInternal, "'" + printable(text) + "' is not UTF-8 and cannot be written as JSON");
  return Json(text).dump();
}

}  // namespace

std::uint64_t parse_header_length(std::span<const std::byte> first_8_bytes, std::uint64_t file_size_bytes, const std::string& path) {
  constexpr std::uint64_t kLengthBytes = 8;
  if (file_size_bytes < kLengthBytes || first_8_bytes.size() != kLengthBytes) {
    throw Error(ErrorCode::kInvalidInput,
                "the file has " + number(std::min<std::uint64_t>(file_size_bytes, first_8_bytes.size())) +
                    " bytes, but a safetensors file starts with 8 bytes that state its header's length. The download may not be complete",
                path);
  }
  std::uint64_t length = 0;
  std::memcpy(&length, first_8_bytes.data(), sizeof length);
  const std::string says = "the first 8 bytes state a header of " + number(length) + " bytes, but ";
  if (length > kMaxHeaderBytes) {
    throw Error(ErrorCode::kInvalidInput,
                says + "at most " + number(kMaxHeaderBytes) + " are accepted: this is not a safetensors file, or it is damaged." +
                    guess_of_content(first_8_bytes),
                path);
  }
  if (length > file_size_bytes - kLengthBytes) {
    throw Error(
        ErrorCode::kInvalidInput,
        says + "the file has only " + number(file_size_bytes) + " bytes. It is damaged or was cut; compare its size with the source", path);
  }
  if (length < 2) throw Error(ErrorCode::kInvalidInput, says + "the shortest header, '{}', has 2", path);
  return length;
}

SafetensorsHeader parse_safetensors_header(std::string_view header_json, std::uint64_t file_size_bytes, const std::string& path) {
  const std::uint64_t data_begin = 8 + static_cast<std::uint64_t>(header_json.size());
  if (data_begin > file_size_bytes) {
    throw Error(ErrorCode::kInvalidInput,
                "the header ends at byte " + number(data_begin) + ", but the file has only " + number(file_size_bytes) + " bytes", path);
  }
  const Json json = parse_json(header_json, path, {.max_bytes = kMaxHeaderBytes, .max_depth = 16});
  if (!json.is_object()) {
    throw Error(ErrorCode::kInvalidInput, std::string("the safetensors header is of JSON type ") + json.type_name() + ", not an object",
                path);
  }
  if (header_json.front() != '{') throw Error(ErrorCode::kInvalidInput, "the safetensors header does not start with '{'", path);
  return HeaderParser(data_begin, file_size_bytes - data_begin, path).parse(json);
}

std::string serialize_safetensors_header(std::span<const TensorLayout> tensors,
                                         std::span<const std::pair<std::string, std::string>> extra_metadata,
                                         std::uint64_t data_alignment) {
  std::string text(8, '\0');
  text += R"({"__metadata__":{"format":"pt")";
  for (const auto& [key, value] : extra_metadata) text += "," + quoted(key) + ":" + quoted(value);
  text += "}";
  std::uint64_t offset = 0;
  for (const TensorLayout& tensor : tensors) {
    const auto tensor_bytes = checked_multiply<std::uint64_t>(num_elements(tensor.shape), size_bytes(tensor.dtype));
    const auto end = tensor_bytes ? checked_add(offset, *tensor_bytes) : std::nullopt;
    if (!end) throw Error(ErrorCode::kInternal, "a file would be longer than 2^64 - 1 bytes", "", tensor.name);
    std::string extents;
    for (const std::uint64_t extent : tensor.shape) extents += (extents.empty() ? "" : ",") + number(extent);
    text += "," + quoted(tensor.name) + R"(:{"dtype":")" + std::string(name(tensor.dtype)) + R"(","shape":[)" + extents +
            R"(],"data_offsets":[)" + number(offset) + "," + number(*end) + "]}";
    offset = *end;
  }
  text += "}";
  text.resize(round_up(text.size(), data_alignment), ' ');
  const std::uint64_t length = text.size() - 8;
  if (length > kMaxHeaderBytes) {
    throw Error(ErrorCode::kInvalidInput, "a safetensors header of " + number(tensors.size()) + " tensors would have " + number(length) +
                                              " bytes, but readers accept at most " + number(kMaxHeaderBytes) + "; use smaller shards");
  }
  std::memcpy(text.data(), &length, sizeof length);
  return text;
}

}  // namespace moeweld::formats
