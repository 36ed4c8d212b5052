#pragma once
/// Text for people: sizes, durations, suggestions, and names from untrusted files made printable.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace moeweld {

/// Decimal units, at most three significant digits: "13.5 GB", "54 GB", "740 B". For what is stored or moved.
std::string format_bytes(std::uint64_t num_bytes);

/// Binary units: "1.31 GiB". For memory.
std::string format_memory(std::uint64_t num_bytes);

/// "7.9 s", "0:03" never: seconds below 120 with one digit, then "m:ss", then "h:mm:ss".
std::string format_duration(double seconds);

/// Parses "5GB", "5B", "500M", "2GiB", "1.5g", "4096": k, m, g, t and the peer's b (10^9) are decimal, any case; KiB, MiB, GiB, TiB
/// are binary. Nothing if it is not a positive size below 2^63. A bare "B" after a number means 10^9, as mergekit's users write it.
std::optional<std::uint64_t> parse_size(std::string_view text);

/// The candidate with the smallest edit distance to `word`, case ignored, if it is near enough to be meant (at most a third of the
/// letters).
std::optional<std::string> nearest(std::string_view word, std::span<const std::string> candidates);

/// Control characters, invalid UTF-8 and line breaks replaced by \xNN, and cut to `max_bytes` with an ellipsis: names from files are
/// shown, not trusted.
std::string printable(std::string_view text, std::size_t max_bytes = 300);

/// Whether the bytes are valid UTF-8 (no overlong forms, no surrogates).
bool is_utf8(std::string_view text);

}  // namespace moeweld
