// The kernels of the program by name, each with a function that gives it the arguments of a request.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <tuple>
#include <vector>

#include "block.h"

struct __nv_bfloat16;

namespace emulation {

// An argument as it came: a scalar's bytes, or the address of a buffer.
struct Argument {
  char kind;                // the type's letter, below
  bool pointer;
  std::uint64_t bits;       // of a scalar
  void* memory;             // of a buffer; null for a null pointer
  std::size_t bytes;
};

// Letters of types, the same as in the test that sends them.
template <class T>
constexpr char letter();
template <>
constexpr char letter<int>() { return 'i'; }
template <>
constexpr char letter<unsigned>() { return 'u'; }
template <>
constexpr char letter<long long>() { return 'l'; }
template <>
constexpr char letter<unsigned long long>() { return 'q'; }
template <>
constexpr char letter<float>() { return 'f'; }
template <>
constexpr char letter<double>() { return 'd'; }
template <>
constexpr char letter<__nv_bfloat16>() { return 'b'; }

template <class T>
T take(const Argument& argument, std::size_t index) {
  T value;
  if (argument.pointer || argument.kind != letter<T>()) {
    fail("argument %zu is a scalar of type '%c', not '%c'", index, letter<T>(), argument.kind);
  }
  std::memcpy(&value, &argument.bits, sizeof value);
  return value;
}

template <class T>
struct Taken {
  static T from(const Argument& argument, std::size_t index) { return take<T>(argument, index); }
};

template <class T>
struct Taken<T*> {
  static T* from(const Argument& argument, std::size_t index) {
    using Value = typename std::remove_const<T>::type;
    if (!argument.pointer || (argument.memory != nullptr && argument.kind != letter<Value>())) {
      fail("argument %zu is a pointer to '%c', not '%c'", index, letter<Value>(), argument.kind);
    }
    return static_cast<T*>(argument.memory);
  }
};

using Invoke = void (*)(const void* kernel, const Launch&, const std::vector<Argument>&);

// As the driver is given arguments: a pointer to each, whose types it does not know.
using InvokeUntyped = void (*)(const void* kernel, const Launch&, void** arguments);

// The function that launches kernels of one signature.
template <class... A>
struct Signature {
  template <std::size_t... I>
  static std::tuple<A...> all(const std::vector<Argument>& arguments, std::index_sequence<I...>) {
    return std::tuple<A...>(Taken<A>::from(arguments[I], I)...);
  }

  template <std::size_t... I>
  static std::tuple<A...> all_untyped(void** arguments, std::index_sequence<I...>) {
    return std::tuple<A...>(*static_cast<A*>(arguments[I])...);
  }

  static void invoke(const void* kernel, const Launch& launch, const std::vector<Argument>& arguments) {
    if (arguments.size() != sizeof...(A)) fail("%zu arguments, not %zu", sizeof...(A), arguments.size());
    call(kernel, launch, all(arguments, std::index_sequence_for<A...>()));
  }

  static void invoke_untyped(const void* kernel, const Launch& launch, void** arguments) {
    call(kernel, launch, all_untyped(arguments, std::index_sequence_for<A...>()));
  }

 private:
  static void call(const void* kernel, const Launch& launch, const std::tuple<A...>& arguments) {
    struct Call {
      void (*kernel)(A...);
      std::tuple<A...> arguments;
    } call = {reinterpret_cast<void (*)(A...)>(const_cast<void*>(kernel)), arguments};
    run(
        launch,
        [](void* context) {
          const Call& call = *static_cast<const Call*>(context);
          std::apply(call.kernel, call.arguments);
        },
        &call);
  }
};

void add_kernel(const std::string& name, const void* kernel, Invoke invoke, InvokeUntyped invoke_untyped);

// Adds the kernels of a file when the program starts.
class Kernels {
 public:
  // `names` as written in the source: "a, b".
  explicit Kernels(const char* names) : names_(names) {}

  template <class... F>
  Kernels with(F*... kernels) && {
    (add(kernels), ...);
    return *this;
  }

 private:
  template <class... A>
  void add(void (*kernel)(A...)) {
    const std::size_t first = names_.find_first_not_of(", ", at_), end = names_.find(',', first);
    at_ = end == std::string::npos ? names_.size() : end;
    add_kernel(names_.substr(first, at_ - first), reinterpret_cast<const void*>(kernel), &Signature<A...>::invoke,
               &Signature<A...>::invoke_untyped);
  }

  std::string names_;
  std::size_t at_ = 0;
};

}  // namespace emulation
