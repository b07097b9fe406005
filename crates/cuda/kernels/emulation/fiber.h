// Stacks that take turns on one thread. Switching saves the registers that a call keeps, some nanoseconds; swapcontext
// would ask the kernel for the signal mask twice each time.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#define CANDLEWICK_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CANDLEWICK_ASAN 1
#endif
#endif

#ifdef CANDLEWICK_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// Saves the callee's registers on the stack, its pointer in *from, and goes on with the stack `to`.
extern "C" void candlewick_switch(void** from, void* to) __asm__("candlewick_switch");

#if defined(__x86_64__)
__asm__(
    ".text\n"
    ".globl candlewick_switch\n"
    "candlewick_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n");
#elif defined(__aarch64__)
__asm__(
    ".text\n"
    ".globl candlewick_switch\n"
    ".p2align 2\n"
    "candlewick_switch:\n"
    "  sub sp, sp, #160\n"
    "  stp x19, x20, [sp]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n  stp x25, x26, [sp, #48]\n"
    "  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n"
    "  stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
    "  mov x9, sp\n  str x9, [x0]\n  mov sp, x1\n"
    "  ldp x19, x20, [sp]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n  ldp x25, x26, [sp, #48]\n"
    "  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n"
    "  ldp d12, d13, [sp, #128]\n  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #160\n"
    "  ret\n");
#else
#error "the emulation switches stacks on x86-64 and aarch64 only"
#endif

namespace emulation {

// A stack of its own with the function that begins on it.
class Fiber {
 public:
  // The whole of a stack is one mapping that is used again by every block.
  static constexpr std::size_t STACK = 128 * 1024;

  Fiber() {
    stack_ = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack_ == MAP_FAILED) abort();
  }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber() { munmap(stack_, STACK); }

  // Begins anew: the next switch to this fiber calls `entry`, which must not return.
  void reset(void (*entry)()) {
#ifdef CANDLEWICK_ASAN
    // The entry of the block before has not returned: its frame is still marked.
    constexpr std::size_t FRAME = 4096;
    __asan_unpoison_memory_region(static_cast<char*>(stack_) + STACK - FRAME, FRAME);
#endif
    auto* top = reinterpret_cast<std::uintptr_t*>(static_cast<char*>(stack_) + STACK);
#if defined(__x86_64__)
    // As after a call: the stack pointer is 8 past a multiple of 16 at the function's first instruction.
    *--top = 0;
    *--top = reinterpret_cast<std::uintptr_t>(entry);
    for (int i = 0; i < 6; ++i) *--top = 0;
#else
    top -= 20;
    for (int i = 0; i < 20; ++i) top[i] = 0;
    top[11] = reinterpret_cast<std::uintptr_t>(entry);
#endif
    pointer_ = top;
  }

  // From the scheduler to this fiber; returns when it leaves.
  void enter() {
#ifdef CANDLEWICK_ASAN
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, stack_, STACK);
#endif
    candlewick_switch(&scheduler_, pointer_);
#ifdef CANDLEWICK_ASAN
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  }

  // The first thing on a fiber.
  void begun() {
#ifdef CANDLEWICK_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack_, &scheduler_size_);
#endif
  }

  // From this fiber to the scheduler; returns when it is entered again, unless it is `over`.
  void leave(bool over = false) {
#ifdef CANDLEWICK_ASAN
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(over ? nullptr : &fake, scheduler_stack_, scheduler_size_);
#endif
    (void)over;
    candlewick_switch(&pointer_, scheduler_);
#ifdef CANDLEWICK_ASAN
    __sanitizer_finish_switch_fiber(fake, &scheduler_stack_, &scheduler_size_);
#endif
  }

 private:
  void* stack_;
  void* pointer_ = nullptr;
  void* scheduler_ = nullptr;
#ifdef CANDLEWICK_ASAN
  const void* scheduler_stack_ = nullptr;
  std::size_t scheduler_size_ = 0;
#endif
};

}  // namespace emulation
