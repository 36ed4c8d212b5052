#include "tokenizer/normalizers.h"

#include <gtest/gtest.h>

#include "unit/expect_error.h"
#include "unit/tokenizer/component.h"

namespace moeweld::tokenizer {
namespace {

// Expected values: the Unicode standard (normal forms), and normalize_str of the `tokenizers` library 0.23.3 where it has an opinion of its
// own.

std::string of_type(const std::string& type, const std::string& text) { return normalized(R"({"type": ")" + type + R"("})", text); }

TEST(Normalizer, NormalForms) {
  const std::string angstrom = "\xe2\x84\xab", composed = "\xc3\x85", decomposed = "A\xcc\x8a";
  EXPECT_EQ(of_type("NFC", angstrom), composed);
  EXPECT_EQ(of_type("NFC", decomposed), composed);
  EXPECT_EQ(of_type("NFD", composed), decomposed);
  const std::string ligature = "\xef\xac\x81";  // fi
  EXPECT_EQ(of_type("NFC", ligature), ligature);
  EXPECT_EQ(of_type("NFKC", ligature + decomposed), "fi" + composed);
  EXPECT_EQ(of_type("NFKD", ligature + composed), "fi" + decomposed);
  EXPECT_EQ(of_type("NFD", "\xea\xb0\x81"), "\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8");  // Hangul
  EXPECT_EQ(of_type("NFC", "a\xcc\xa3\xcc\x87"), "\xe1\xba\xa1\xcc\x87");             // order of marks
  EXPECT_EQ(of_type("NFD", "a\xcc\x87\xcc\xa3"), "a\xcc\xa3\xcc\x87");
  EXPECT_EQ(of_type("NFC", ""), "");
  EXPECT_EQ(of_type("NFC", std::string("a\0b", 3)), std::string("a\0b", 3));
}

TEST(Normalizer, WhatIsNewerThanTheLibrarysTableStays) {
  EXPECT_EQ(of_type("NFKD", "\xe3\x8b\xbf"), "\xe3\x8b\xbf");            // U+32FF, the Reiwa era
  EXPECT_EQ(of_type("StripAccents", "a\xe0\xb4\xbb"), "a\xe0\xb4\xbb");  // U+0D3B, Unicode 10
  EXPECT_EQ(of_type("NFC",
                    "e\xcc\x81\xe3\x8b\xbf"
                    "e\xcc\x81"),
            "\xc3\xa9\xe3\x8b\xbf\xc3\xa9");  // text around it does not
}

TEST(Normalizer, Lowercase) {
  EXPECT_EQ(of_type("Lowercase",
                    "\xc3\x80"
                    "BC \xd0\x96 \xce\xa3"),
            "\xc3\xa0"
            "bc \xd0\xb6 \xcf\x83");                                // no final sigma
  EXPECT_EQ(of_type("Lowercase", "\xc4\xb0"), "i\xcc\x87");         // I with dot becomes two
  EXPECT_EQ(of_type("Lowercase", "\xe1\xb2\x89"), "\xe1\xb2\x8a");  // U+1C89, Unicode 16
}

TEST(Normalizer, StripAccentsTakesAllMarks) { EXPECT_EQ(of_type("StripAccents", "e\xcc\x81n\xe2\x83\x9d\xe0\xa4\xbe"), "en"); }

TEST(Normalizer, Nmt) {
  EXPECT_EQ(of_type("Nmt",
                    "a\x01\tb\xe2\x80\x8b\xe2\x96\x81\x7f"
                    "c"),
            "a b  c");
}

TEST(Normalizer, Strip) {
  const auto strip = [](const char* left, const char* right) {
    return normalized(std::string(R"({"type": "Strip", "strip_left": )") + left + R"(, "strip_right": )" + right + "}",
                      "\xe3\x80\x80\t a b \xc2\xa0");
  };
  EXPECT_EQ(strip("true", "true"), "a b");
  EXPECT_EQ(strip("true", "false"), "a b \xc2\xa0");
  EXPECT_EQ(strip("false", "true"), "\xe3\x80\x80\t a b");
  EXPECT_EQ(normalized(R"({"type": "Strip", "strip_left": true, "strip_right": true})", "  "), "");
}

TEST(Normalizer, PrependLeavesEmptyTextAlone) {
  EXPECT_EQ(normalized(R"({"type": "Prepend", "prepend": "_"})", "a"), "_a");
  EXPECT_EQ(normalized(R"({"type": "Prepend", "prepend": "_"})", ""), "");
}

TEST(Normalizer, ReplaceTakesContentLiterally) {
  EXPECT_EQ(normalized(R"({"type": "Replace", "pattern": {"String": "a."}, "content": "x"})", "a.ab"), "xab");
  EXPECT_EQ(normalized(R"({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "_"})", "a  b   c d"), "a_b_c d");
  EXPECT_EQ(normalized(R"json({"type": "Replace", "pattern": {"Regex": "(l)(e)"}, "content": "$1 $2"})json", "le"), "$1 $2");
}

TEST(Normalizer, ByteLevel) { EXPECT_EQ(of_type("ByteLevel", "\xc3\xa9 \n"), "\xc3\x83\xc2\xa9\xc4\xa0\xc4\x8a"); }

TEST(Normalizer, SequenceRunsInOrder) {
  EXPECT_EQ(normalized(R"({"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}, {"type": "Lowercase"}]})",
                       "\xc3\x89t\xc3\xa9"),
            "ete");
}

TEST(Normalizer, OthersAreRefusedByName) {
  for (const char* type : {"BertNormalizer", "Precompiled", "Made\\nup"})
    expect_error([&] { of_type(type, ""); }, ErrorCode::kUnsupported, {"tokenizer.json", "'normalizer'", "there are NFC"});
  expect_error([&] { normalized(R"({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Strip"}]})", ""); },
               ErrorCode::kInvalidInput, {"'normalizer.normalizers[1]' has no 'strip_left'"});
  expect_error([&] { normalized(R"json({"type": "Replace", "pattern": {"Regex": "("}, "content": ""})json", ""); },
               ErrorCode::kInvalidInput, {"tokenizer.json", "'normalizer.pattern'", "malformed"});
  expect_error([&] { normalized(R"({"type": "Replace", "pattern": {}, "content": ""})", ""); }, ErrorCode::kInvalidInput,
               {"neither 'String' nor 'Regex'"});
}

}  // namespace
}  // namespace moeweld::tokenizer
