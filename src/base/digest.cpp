#include "moeweld/base/digest.h"

#include <xxhash.h>
#ifdef MOEWELD_XXHASH_DISPATCH
#include <xxh_x86dispatch.h>  // makes XXH3_128bits the processor's
#endif

#include <cstring>

namespace moeweld {

Digest digest_of(std::span<const std::byte> bytes) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes.data(), bytes.size()));
  Digest digest;
  static_assert(sizeof canonical.digest == sizeof digest.bytes);
  std::memcpy(digest.bytes.data(), canonical.digest, sizeof canonical.digest);
  return digest;
}

Digest digest_of_chunks(std::span<const Digest> chunk_digests) {
  static_assert(sizeof(Digest) == 16);
  return digest_of(std::as_bytes(chunk_digests));
}

std::string to_hex(const Digest& digest) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : digest.bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

}  // namespace moeweld
