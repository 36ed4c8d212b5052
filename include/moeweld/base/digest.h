#pragma once
/// XXH3-128 digests: of bytes, and of files as the digest of the list of their 1 MiB chunks' digests, so that ranks can share a file.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace moeweld {

constexpr std::uint64_t kDigestChunkBytes = 1024 * 1024;

/// XXH3-128 in canonical (big-endian) byte order.
struct Digest {
  std::array<std::uint8_t, 16> bytes{};
  auto operator<=>(const Digest&) const = default;
};

template <class Archive>
void serialize(Archive& archive, Digest& digest) {
  for (std::uint8_t& byte : digest.bytes) archive(byte);
}

Digest digest_of(std::span<const std::byte> bytes);

/// Digest of a file: digest_of the concatenated digests of its file-aligned chunks of kDigestChunkBytes (the last one short).
Digest digest_of_chunks(std::span<const Digest> chunk_digests);

/// 32 lower-case hexadecimal digits.
std::string to_hex(const Digest& digest);

}  // namespace moeweld
