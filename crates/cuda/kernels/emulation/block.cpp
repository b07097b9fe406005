#include "block.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <unistd.h>
#include <vector>

#include "fiber.h"
#include "mma.h"
#include "shadow.h"

namespace emulation {
namespace {

constexpr unsigned ALL_LANES = 0xFFFFFFFFu;
// Of Order::fine: a thread is interrupted at one access in so many.
constexpr std::uint64_t ACCESSES_A_TURN = 61;

enum class State { ready, at_barrier, in_warp, ended };

struct Copy {
  void* shared;
  unsigned char bytes[16];
  unsigned count;
};

struct Thread {
  Fiber fiber;
  State state;
  Site site;
  const char* waits_for;
  // What the lane brings to an instruction of its warp.
  void* lane;
  std::vector<Copy> copies;
};

struct Warp {
  unsigned arrived;
  std::uint32_t epoch;
};

struct Machine {
  Launch launch;
  void (*body)(void*);
  void* context;
  Index block;
  std::uint32_t serial = 0;
  std::uint32_t epoch;
  unsigned waiting;
  unsigned running;
  void* shared;
  std::deque<Thread> threads;
  std::vector<Warp> warps;
  std::vector<unsigned> order;
  std::uint64_t random;
  bool active = false;
} machine;

// SplitMix64.
std::uint64_t next_random() {
  std::uint64_t x = machine.random += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

Thread& current() { return machine.threads[machine.running]; }

// Until the scheduler comes back to this thread in state ready.
void wait(State state, const char* waits_for, Site site) {
  Thread& thread = current();
  thread.state = state, thread.waits_for = waits_for, thread.site = site;
  thread.fiber.leave();
}

void check_same(const Thread& a, const Thread& b) {
  const bool same = std::strcmp(a.waits_for, b.waits_for) == 0 && a.site.line == b.site.line &&
                    std::strcmp(a.site.file, b.site.file) == 0;
  if (same) return;
  fail("divergence: one thread waits in %s at %s:%d, another in %s at %s:%d", a.waits_for, a.site.file, a.site.line,
       b.waits_for, b.site.file, b.site.line);
}

// Waits for the warp; the last lane runs `together` on what all of them brought.
void whole_warp(const char* name, Site site, void* lane, void (*together)(void* const (&lanes)[WARP])) {
  const unsigned first = machine.running / WARP * WARP;
  Warp& warp = machine.warps[machine.running / WARP];
  Thread& mine = current();
  mine.lane = lane;
  if (++warp.arrived < WARP) {
    wait(State::in_warp, name, site);
    return;
  }
  mine.waits_for = name, mine.site = site;
  void* lanes[WARP];
  for (unsigned i = 0; i < WARP; ++i) {
    Thread& other = machine.threads[first + i];
    check_same(mine, other);
    lanes[i] = other.lane;
  }
  together(lanes);
  warp.arrived = 0;
  for (unsigned i = 0; i < WARP; ++i) machine.threads[first + i].state = State::ready;
}

void entry() {
  Thread& thread = current();
  thread.fiber.begun();
  machine.body(machine.context);
  if (!thread.copies.empty()) fail("a thread ended with asynchronous copies that it has not waited for");
  thread.state = State::ended;
  thread.fiber.leave(true);
  abort();
}

[[noreturn]] void stuck() {
  unsigned ended = 0;
  const Thread* waits = nullptr;
  for (const Thread& thread : machine.threads) {
    if (thread.state == State::ended) ++ended;
    else if (waits == nullptr || thread.state == State::at_barrier) waits = &thread;
  }
  for (const Thread& thread : machine.threads) {
    if (thread.state != State::ended) check_same(*waits, thread);
  }
  fail("divergence: threads wait in %s at %s:%d, and %u of %zu threads have ended", waits->waits_for,
       waits->site.file, waits->site.line, ended, machine.threads.size());
}

void shuffle_order() {
  for (std::size_t i = machine.order.size(); i > 1; --i) {
    std::swap(machine.order[i - 1], machine.order[next_random() % i]);
  }
}

void run_block() {
  const unsigned threads = machine.launch.threads;
  ++machine.serial;
  machine.epoch = 0, machine.waiting = 0;
  machine.shared = shadow::begin_block(machine.launch.shared_bytes);
  for (Warp& warp : machine.warps) warp = {0, 0};
  for (Thread& thread : machine.threads) {
    thread.state = State::ready;
    thread.copies.clear();
    thread.fiber.reset(entry);
  }
  const bool random = machine.launch.order == Order::shuffled || machine.launch.order == Order::fine;
  for (unsigned ended = 0; ended < threads;) {
    if (random) shuffle_order();
    bool progress = false;
    for (const unsigned thread : machine.order) {
      if (machine.threads[thread].state != State::ready) continue;
      machine.running = thread;
      machine.active = true;
      machine.threads[thread].fiber.enter();
      machine.active = false;
      progress = true;
      if (machine.threads[thread].state == State::ended) ++ended;
    }
    if (!progress) stuck();
  }
}

}  // namespace

Index thread_index() { return {machine.running, 0, 0}; }
Index block_index() { return machine.block; }
Index block_size() { return {machine.launch.threads, 1, 1}; }
Index grid_size() { return machine.launch.grid; }
void* shared_memory() { return machine.shared; }
bool in_kernel() { return machine.active; }

Now now() {
  return {machine.serial, machine.epoch, machine.warps[machine.running / WARP].epoch, machine.running};
}

void maybe_yield() {
  if (machine.launch.order != Order::fine || next_random() % ACCESSES_A_TURN != 0) return;
  current().fiber.leave();
}

void block_barrier(Site site) {
  if (++machine.waiting < machine.threads.size()) {
    wait(State::at_barrier, "__syncthreads", site);
    return;
  }
  Thread& mine = current();
  mine.waits_for = "__syncthreads", mine.site = site;
  for (Thread& thread : machine.threads) {
    check_same(mine, thread);
    thread.state = State::ready;
  }
  machine.waiting = 0;
  ++machine.epoch;
}

void warp_barrier(Site site) {
  whole_warp("__syncwarp", site, nullptr, [](void* const (&)[WARP]) {
    ++machine.warps[machine.running / WARP].epoch;
  });
}

std::uint64_t shuffle_xor(unsigned lanes, std::uint64_t value, int mask, Site site) {
  struct Lane {
    std::uint64_t value, result;
    int mask;
  } mine = {value, 0, mask};
  if (lanes != ALL_LANES) fail("%s:%d: a shuffle of part of a warp", site.file, site.line);
  if (mask < 0 || mask >= static_cast<int>(WARP)) fail("%s:%d: a shuffle by %d", site.file, site.line, mask);
  whole_warp("__shfl_xor_sync", site, &mine, [](void* const (&lanes)[WARP]) {
    for (unsigned i = 0; i < WARP; ++i) {
      Lane* lane = static_cast<Lane*>(lanes[i]);
      lane->result = static_cast<Lane*>(lanes[i ^ lane->mask])->value;
    }
  });
  return mine.result;
}

void load_matrices(unsigned (&words)[4], const void* row, bool transposed, Site site) {
  struct Lane {
    unsigned* words;
    const unsigned char* row;
    bool transposed;
  } mine = {words, static_cast<const unsigned char*>(row), transposed};
  if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0) fail("%s:%d: ldmatrix of an odd address", site.file, site.line);
  whole_warp("ldmatrix", site, &mine, [](void* const (&lanes)[WARP]) {
    const unsigned last = machine.running;
    for (unsigned l = 0; l < WARP; ++l) {
      // Who gets the values reads them.
      machine.running = last / WARP * WARP + l;
      const Lane* lane = static_cast<const Lane*>(lanes[l]);
      for (unsigned matrix = 0; matrix < 4; ++matrix) {
        unsigned word = 0;
        for (unsigned i = 0; i < 2; ++i) {
          const unsigned major = l / 4, minor = l % 4 * 2 + i;
          const unsigned from_row = lane->transposed ? minor : major, column = lane->transposed ? major : minor;
          const unsigned char* at = static_cast<const Lane*>(lanes[matrix * 8 + from_row])->row + column * 2;
          shadow::read(at, 2);
          std::uint16_t half;
          std::memcpy(&half, at, 2);
          word |= static_cast<unsigned>(half) << (16 * i);
        }
        lane->words[matrix] = word;
      }
    }
    machine.running = last;
  });
}

void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, Site site) {
  MultiplyAdd mine = {c, a, {b0, b1}};
  whole_warp("mma", site, &mine, multiply_add_together);
}

void copy_async(void* shared, const void* source, unsigned bytes, bool valid) {
  const auto to = reinterpret_cast<std::uintptr_t>(shared), from = reinterpret_cast<std::uintptr_t>(source);
  if (to % bytes != 0 || from % bytes != 0) fail("an asynchronous copy of %u bytes is not aligned to them", bytes);
  Copy copy = {shared, {}, bytes};
  if (valid) {
    shadow::read(source, bytes);
    std::memcpy(copy.bytes, source, bytes);
  }
  shadow::write(shared, bytes);
  shadow::copy_begins(shared, bytes);
  // Not numbers, for whoever reads too early.
  std::memset(shared, 0xFF, bytes);
  current().copies.push_back(copy);
}

void copy_async_wait() {
  for (const Copy& copy : current().copies) {
    std::memcpy(copy.shared, copy.bytes, copy.count);
    shadow::copy_arrives(copy.shared, copy.count);
  }
  current().copies.clear();
}

void run(const Launch& launch, void (*body)(void*), void* context) {
  if (launch.threads == 0 || launch.threads > 1024 || launch.threads % WARP != 0) {
    fail("a block of %u threads", launch.threads);
  }
  machine.launch = launch, machine.body = body, machine.context = context;
  machine.random = launch.seed;
  while (machine.threads.size() < launch.threads) machine.threads.emplace_back();
  while (machine.threads.size() > launch.threads) machine.threads.pop_back();
  machine.warps.resize(launch.threads / WARP);
  machine.order.resize(launch.threads);
  for (unsigned i = 0; i < launch.threads; ++i) {
    machine.order[i] = launch.order == Order::reverse ? launch.threads - 1 - i : i;
  }
  shadow::begin_launch();
  const Index grid = launch.grid;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        machine.block = {x, y, z};
        // The order of the blocks is nothing to rely on either.
        if (launch.order == Order::reverse) machine.block = {grid.x - 1 - x, grid.y - 1 - y, grid.z - 1 - z};
        run_block();
      }
    }
  }
}

void fail(const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  std::fprintf(stderr, "emulation: block (%u, %u, %u), thread %u: ", machine.block.x, machine.block.y, machine.block.z,
               machine.running);
  std::vfprintf(stderr, format, arguments);
  std::fputc('\n', stderr);
  va_end(arguments);
  std::fflush(stderr);
  _exit(3);
}

}  // namespace emulation
