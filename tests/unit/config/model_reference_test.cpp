#include "moeweld/config/model_reference.h"

#include <gtest/gtest.h>

#include "unit/expect_error.h"

namespace moeweld::config {
namespace {

void expect_reference_refused(std::string_view text, std::initializer_list<std::string> parts) {
  SCOPED_TRACE(text);
  expect_error([&] { parse_model_reference(text); }, ErrorCode::kInvalidConfig, parts);
}

TEST(ModelReference, ReadsAPath) {
  const ModelReference reference = parse_model_reference(" ./models/a b ");
  EXPECT_EQ(reference, (ModelReference{.path = "./models/a b"}));
}

TEST(ModelReference, ReadsARevision) {
  EXPECT_EQ(parse_model_reference("org/name@v1.0"), (ModelReference{.path = "org/name", .revision = "v1.0"}));
}

TEST(ModelReference, ReadsAnAdapterWithARevisionOfItsOwn) {
  EXPECT_EQ(parse_model_reference("org/name@main+org/adapter@42"),
            (ModelReference{.path = "org/name", .revision = "main", .lora = "org/adapter", .lora_revision = "42"}));
}

TEST(ModelReference, IsWrittenAsItIsRead) {
  for (const char* text : {"a", "org/name@v1", "a+b", "a@1+b@2"}) EXPECT_EQ(parse_model_reference(text).to_string(), text);
}

TEST(ModelReference, RefusesAnEmptyPath) {
  expect_reference_refused("", {"names no model"});
  expect_reference_refused("@main", {"'@main'", "names no model"});
  expect_reference_refused("a+", {"'a+'", "names no model"});
}

TEST(ModelReference, RefusesSeveralRevisions) { expect_reference_refused("a@b@c", {"'a@b@c'", "more than one '@'"}); }

TEST(ModelReference, RefusesAnEmptyRevision) { expect_reference_refused("a@", {"'a@'", "no revision after '@'"}); }

TEST(ModelReference, RefusesSeveralAdapters) { expect_reference_refused("a+b+c", {"'a+b+c'", "more than one '+'"}); }

}  // namespace
}  // namespace moeweld::config
