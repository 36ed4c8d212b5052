#pragma once
/// A tokenizer.model of a few pieces, written field by field: sentencepiece_model.proto of SentencePiece.

#include <cstdint>
#include <cstring>
#include <string>

namespace moeweld::tokenizer {

inline std::string proto_varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>((value & 0x7F) | 0x80);
  return bytes + static_cast<char>(value);
}
inline std::string proto_field(int number, std::uint64_t value) {
  return proto_varint(static_cast<std::uint64_t>(number) << 3) + proto_varint(value);
}
inline std::string proto_field(int number, const std::string& bytes) {
  return proto_varint(static_cast<std::uint64_t>(number) << 3 | 2) + proto_varint(bytes.size()) + bytes;
}
inline std::string proto_field(int number, float value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return proto_varint(static_cast<std::uint64_t>(number) << 3 | 5) + bytes;
}

constexpr std::int64_t kPieceMark = 3, kPieceA = 4, kPieceB = 5, kPieceAb = 6, kPieceMarkAb = 7;

/// BPE with <unk>, <s>, </s>, the mark U+2581, a, b, ab and the mark with ab: "a b" is merged before "mark ab". Like Llama's it puts a mark
/// before the text and keeps all spaces.
inline std::string piece_model() {
  enum : std::uint64_t { kNormal = 1, kUnknown = 2, kControl = 3, kBpe = 2 };
  const std::string mark = "\xe2\x96\x81";
  std::string model;
  const auto add = [&](const std::string& piece, float score, std::uint64_t type) {
    model += proto_field(1, proto_field(1, piece) + proto_field(2, score) + proto_field(3, type));
  };
  add("<unk>", 0, kUnknown);
  add("<s>", 0, kControl);
  add("</s>", 0, kControl);
  add(mark, -10, kNormal);
  add("a", -11, kNormal);
  add("b", -12, kNormal);
  add("ab", -1, kNormal);
  add(mark + "ab", -2, kNormal);
  model += proto_field(2, proto_field(3, kBpe));
  model += proto_field(3, proto_field(1, std::string("identity")) + proto_field(3, std::uint64_t{1}) + proto_field(4, std::uint64_t{0}));
  return model;
}

}  // namespace moeweld::tokenizer
