#include "config/yaml_document.h"

#include <gtest/gtest.h>

#include "unit/expect_error.h"

namespace moeweld::config {
namespace {

void expect_reference_refused(const std::string& text, int line, std::initializer_list<std::string> parts,
                              ErrorCode code = ErrorCode::kInvalidConfig) {
  SCOPED_TRACE(text.substr(0, 200));
  try {
    load_yaml_document(text, "merge.yaml");
  } catch (const Error& error) {
    EXPECT_EQ(error_code_name(error.code()), error_code_name(code)) << error.what();
    EXPECT_EQ(error.problems().front().line, line) << error.what();
    EXPECT_EQ(error.problems().front().path, "merge.yaml");
    for (const std::string& part : parts) EXPECT_THAT(std::string(error.what()), testing::HasSubstr(part));
    return;
  }
  ADD_FAILURE() << "the text was accepted";
}

std::string repeated(const std::string& part, int count) {
  std::string result;
  for (int i = 0; i < count; ++i) result += part;
  return result;
}

TEST(YamlDocument, KnowsTheLinesOfItsNodes) {
  const YAML::Node root = load_yaml_document("# first\na: 1\nb:\n  - 2\n  - 3\n", "merge.yaml");
  EXPECT_EQ(line_of(root), 2);
  EXPECT_EQ(line_of(root["b"][1]), 5);
}

TEST(YamlDocument, ReadsWindowsLineEndsAndAByteOrderMark) {
  EXPECT_EQ(load_yaml_document("\xEF\xBB\xBF"
                               "a: 1\r\nb: two\r\n",
                               "merge.yaml")["b"]
                .Scalar(),
            "two");
}

TEST(YamlDocument, RefusesAFileOver10Megabytes) {
  expect_reference_refused("a: " + std::string(10'000'000, 'x'), 0, {"10000003 bytes", "10000000"});
}

TEST(YamlDocument, RefusesBytesThatAreNotUtf8) { expect_reference_refused("a: \xFF\n", 0, {"not UTF-8"}); }

TEST(YamlDocument, RefusesANulByte) { expect_reference_refused(std::string("a: \0b\n", 7), 0, {"NUL"}); }

TEST(YamlDocument, RefusesATextWithoutAConfiguration) {
  for (const char* text : {"", "\n\n", "# only this\n", "---\n---\n"}) expect_reference_refused(text, 0, {"holds no configuration"});
}

TEST(YamlDocument, RefusesASecondDocumentByName) {
  expect_reference_refused("a: 1\n---\nb: 2\n", 3, {"second document", "later version"}, ErrorCode::kUnsupported);
}

TEST(YamlDocument, RefusesATokenThatNoDocumentCanBeginWith) { expect_reference_refused("!tag,", 1, {"not valid YAML"}); }

TEST(YamlDocument, RefusesMoreThanAThousandDocuments) {
  expect_reference_refused(repeated("---\n", 1001), 1001, {"more than 1000 documents"});
}

TEST(YamlDocument, RefusesASyntaxErrorWithItsLineAndColumn) {
  expect_reference_refused("a: 1\nb: [1, 2\nc: }\n", 3, {"not valid YAML", "column"});
}

TEST(YamlDocument, RefusesAnUnknownAlias) { expect_reference_refused("a: 1\nb: *nowhere\n", 2, {"not valid YAML", "column 4"}); }

TEST(YamlDocument, RefusesAKeyGivenTwice) {
  expect_reference_refused("a: 1\nb: 2\na: 3\n", 3, {"key 'a' is here twice"});
  expect_reference_refused("a:\n  - {weight: 1,\n     weight: 2}\n", 3, {"key 'weight' is here twice"});
}

TEST(YamlDocument, RefusesAKeyThatIsNotText) { expect_reference_refused("a: 1\n[b, c]: 2\n", 2, {"key is not plain text"}); }

TEST(YamlDocument, TakesNestingOf32LevelsAndRefusesMore) {
  EXPECT_TRUE(load_yaml_document("a: " + repeated("[", 31) + repeated("]", 31), "merge.yaml").IsMap());
  expect_reference_refused("a: 1\nb: " + repeated("[", 33) + repeated("]", 33), 2, {"deeper than 32"});
}

TEST(YamlDocument, RefusesNestingThatWouldExhaustTheStack) {
  expect_reference_refused("a: 1\nb: " + repeated("[", 1'000'000), 2, {"deeper than 32"});
  expect_reference_refused("a: 1\nb: " + repeated("{", 1'000'000), 2, {"deeper than 32"});
  expect_reference_refused("a: 1\n" + repeated("- ", 100'000) + "x", 2, {"deeper than 32"});
  expect_reference_refused("a: 1\n" + repeated("? ", 100'000) + "x", 2, {"deeper than 32"});
}

TEST(YamlDocument, RefusesNestingByIndentation) {
  std::string text;
  for (int i = 0; i < 2000; ++i) text += std::string(static_cast<std::size_t>(i), ' ') + "a:\n";
  expect_reference_refused(text, 129, {"indented deeper"});
}

TEST(YamlDocument, BracketsHiddenBehindAQuoteInPlainTextDoNotExhaustTheStack) {
  // Inside of brackets a quote in the middle of a word's neighbourhood is plain text to YAML, so what follows it nests.
  const std::string text = "a: [x 'y, " + repeated("[", 200'000);
  EXPECT_THROW(load_yaml_document(text, "merge.yaml"), Error);
}

TEST(YamlDocument, RefusesAnAnchorThatHoldsItself) { expect_reference_refused("a: &a [1, *a]\n", 1, {"deeper than 32"}); }

TEST(YamlDocument, RefusesAliasesThatMultiply) {
  std::string text = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n";
  for (int i = 1; i < 9; ++i) {
    const std::string below = "*a" + std::to_string(i - 1);
    text += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + below + repeated(", " + below, 9) + "]\n";
  }
  expect_reference_refused(text, 0, {"expands to more than 100000 values"});
}

TEST(YamlDocument, BracketsAndRulesInTextsAreNotNesting) {
  const std::string text = "template: |\n  " + std::string(80, '-') + " rule\n  {% for x in [[1]] %}{{ x }}{% endfor %}\nquoted: \"" +
                           repeated("[", 100) + "\"\n# " + repeated("[", 100) + "\n" + std::string(40, ' ') + "\n";
  EXPECT_EQ(load_yaml_document(text, "merge.yaml")["quoted"].Scalar(), repeated("[", 100));
}

}  // namespace
}  // namespace moeweld::config
