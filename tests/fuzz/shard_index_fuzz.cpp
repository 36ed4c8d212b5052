/// Any text either is a shard index or is refused with Error; no accepted file name leaves its directory; what is written reads back.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "moeweld/base/error.h"
#include "moeweld/formats/shard_index.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size_bytes) {
  using namespace moeweld;
  using namespace moeweld::formats;
  try {
    const ShardIndex index = parse_shard_index(std::string_view(reinterpret_cast<const char*>(data), size_bytes), "fuzz.json");
    for (const auto& [tensor, file] : index.weight_map) {
      if (file.empty() || file == "." || file == ".." || file.find_first_of("/\\") != std::string::npos) std::abort();
    }
    if (parse_shard_index(serialize_shard_index(index, 1), "again.json").weight_map != index.weight_map) std::abort();
  } catch (const Error& error) {
    if (error.problems().empty() || error.problems().front().path != "fuzz.json") std::abort();
  }
  return 0;
}
