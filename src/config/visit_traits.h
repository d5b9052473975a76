// What kind of member a visitor of the config structs stands before.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

namespace lh {

template <typename T>
inline constexpr bool kIsOptional = false;
template <typename T>
inline constexpr bool kIsOptional<std::optional<T>> = true;

template <typename T>
inline constexpr bool kIsList = false;
template <typename T>
inline constexpr bool kIsList<std::vector<T>> = true;

/// Sections under names of the user's choice.
template <typename T>
inline constexpr bool kIsNamed = false;
template <typename T>
inline constexpr bool kIsNamed<std::map<std::string, T>> = true;

/// A struct with a visit() of its own.
template <typename T>
inline constexpr bool kIsSection = std::is_class_v<T> && !kIsOptional<T> && !kIsList<T> &&
                                   !kIsNamed<T> && !std::is_same_v<T, std::string>;

}  // namespace lh
