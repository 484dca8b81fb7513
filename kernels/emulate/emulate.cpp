// Fibers, and the one block that runs. Each thread of the process that runs kernels has its own.
#include "emulate.h"

#include <ucontext.h>

#include <memory>
#include <vector>

namespace emulate {
namespace {

constexpr size_t STACK = 64 << 10;

struct Kernel {
  const char* name;
  size_t arguments;
  uint32_t threads;
  void (*run)(const void*);
};

std::vector<Kernel>& kernels() {
  static std::vector<Kernel> all;
  return all;
}

// Fibers outlive blocks: their stacks are made once.
struct Machine {
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<std::unique_ptr<uint8_t[]>> stacks;
  std::vector<uint8_t> memory;
  Block block;
  Fiber* current = nullptr;
  jmp_buf scheduler;
  ucontext_t main;
  void (*run)(const void*) = nullptr;
  const void* arguments = nullptr;
  unsigned long steps = 0;
  uint32_t seed = 1;
};

// A pointer, which needs no look at every use at whether it was made.
thread_local Machine* of_thread = nullptr;
#define machine (*of_thread)

// A fiber runs the kernel for one thread after the other, and rests in between.
void live() {
  for (;;) {
    machine.run(machine.arguments);
    machine.current->done = true;
    machine.steps++;
    if (_setjmp(machine.current->at) == 0) _longjmp(machine.scheduler, 1);
  }
}

void resume(Fiber& fiber, size_t at) {
  machine.current = &fiber;
  if (_setjmp(machine.scheduler) != 0) return;
  if (fiber.started) _longjmp(fiber.at, 1);
  fiber.started = true;
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = machine.stacks[at].get();
  context.uc_stack.ss_size = STACK;
  context.uc_link = nullptr;
  makecontext(&context, live, 0);
  setcontext(&context);
}

void run_block() {
  Block& b = machine.block;
  memset(b.shared, 0xee, b.shared_bytes);
  b.warps.assign((b.threads + 31) / 32, Warp());
  b.arrived = b.generation = 0;
  b.barriers.clear();
  b.flying.clear();
  while (machine.fibers.size() < b.threads) {
    machine.fibers.push_back(std::make_unique<Fiber>());
    machine.fibers.back()->started = false;
    machine.stacks.push_back(std::make_unique<uint8_t[]>(STACK));
  }
  for (uint32_t i = 0; i < b.threads; ++i) {
    Fiber& f = *machine.fibers[i];
    f.done = false;
    f.thread = {i, 0, 0};
    f.groups.assign(1, {});
    f.products.assign(1, {});
  }
  // Rounds that a warp rests, so that others get far ahead of it.
  std::vector<uint32_t> rests(b.warps.size(), 0);
  for (uint32_t left = b.threads; left > 0;) {
    const unsigned long before = machine.steps;
    bool rested = false;
    for (uint32_t& rest : rests) {
      if (rest > 0) rest--;
      else if (random(32) == 0) rest = random(64);
    }
    const uint32_t first = random(b.threads);
    for (uint32_t i = 0; i < b.threads; ++i) {
      const uint32_t at = (first + i) % b.threads;
      Fiber& f = *machine.fibers[at];
      if (f.done) continue;
      if (rests[at / 32] > 0) {
        rested = true;
        continue;
      }
      resume(f, at);
      if (f.done) {
        left--;
      } else if (random(8) == 0) {
        // A copy lands before it must.
        auto& group = f.groups[random((uint32_t)f.groups.size())];
        if (!group.empty()) {
          land(group.back());
          group.pop_back();
        }
      }
    }
    // Copies land in any order, each at any time.
    if (!b.flying.empty() && (random(2) == 0 || machine.steps == before)) {
      const uint32_t at = random((uint32_t)b.flying.size());
      const auto copy = b.flying[at];
      b.flying.erase(b.flying.begin() + at);
      copy();
      machine.steps++;
    }
    if (left > 0 && machine.steps == before && !rested) fail("all threads wait for each other");
  }
  for (uint32_t i = 0; i < b.threads; ++i)
    for (const auto& group : machine.fibers[i]->groups)
      if (!group.empty()) fail("a copy was never waited for");
  for (uint32_t i = 0; i < b.threads; ++i)
    for (const auto& group : machine.fibers[i]->products)
      if (!group.empty()) fail("a product was never waited for");
  if (!b.flying.empty()) fail("a block ends before its copies have landed");
}

}  // namespace

Registered::Registered(const char* name, size_t arguments, uint32_t threads, void (*run)(const void*)) {
  kernels().push_back({name, arguments, threads, run});
}

Block& block() { return machine.block; }
Fiber& fiber() { return *machine.current; }
void progress() { machine.steps++; }

void yield() {
  if (_setjmp(machine.current->at) == 0) _longjmp(machine.scheduler, 1);
}

void dawdle() {
  while (random(4) == 0) {
    progress();
    yield();
  }
}

void fail(const char* what) {
  fprintf(stderr, "emulated kernel, block %u %u: %s\n", machine.block.index.x, machine.block.index.y, what);
  abort();
}

uint32_t random(uint32_t below) {
  machine.seed = machine.seed * 1664525u + 1013904223u;
  return (uint32_t)(((uint64_t)machine.seed * below) >> 32);
}

const uint8_t (*exchange(const void* mine, size_t bytes))[32] {
  Warp& warp = machine.block.warps[machine.current->thread.x / 32];
  const unsigned generation = warp.generation;
  auto& given = warp.given[generation & 1];
  memcpy(given[machine.current->thread.x & 31], mine, bytes);
  progress();
  if (++warp.arrived == 32) {
    warp.arrived = 0;
    warp.generation++;
  } else {
    while (warp.generation == generation) yield();
  }
  return given;
}

Barrier& barrier(uint32_t at) {
  const auto found = machine.block.barriers.find(at);
  if (found == machine.block.barriers.end()) fail("a barrier that was never made");
  return found->second;
}

void look_at(Barrier& barrier) {
  progress();
  if (barrier.pending < 0) fail("more arrive at a barrier than it counts");
  if (barrier.pending == 0 && barrier.bytes == 0) {
    barrier.parity ^= 1;
    barrier.pending = barrier.count;
  }
}

void land(const Copy& copy) {
  if (copy.to + 16 > machine.block.shared_bytes) fail("a copy lands beyond shared memory");
  if (copy.inside) {
    memcpy(machine.block.shared + copy.to, copy.from, 16);
  } else {
    memset(machine.block.shared + copy.to, 0, 16);
  }
}

}  // namespace emulate

// How many kernels there are.
extern "C" size_t emulated_kernels() { return emulate::kernels().size(); }

// The name of one, the bytes of its argument and the threads of its blocks.
extern "C" const char* emulated_kernel(size_t at, size_t* arguments, uint32_t* threads) {
  const auto& kernel = emulate::kernels()[at];
  *arguments = kernel.arguments;
  *threads = kernel.threads;
  return kernel.name;
}

// Runs all blocks of a grid, one after the other, in an order that changes.
extern "C" void run_emulated(size_t at, const void* arguments, uint32_t x, uint32_t y, uint32_t shared, uint32_t seed) {
  using namespace emulate;
  static thread_local Machine made;
  of_thread = &made;
  const auto& kernel = kernels()[at];
  machine.seed = seed;
  machine.run = kernel.run;
  machine.arguments = arguments;
  machine.memory.assign(shared + 1024, 0);
  Block& b = machine.block;
  b.shared = machine.memory.data() + (1024 - (uintptr_t)machine.memory.data() % 1024) % 1024;
  b.shared_bytes = shared;
  b.threads = kernel.threads;
  b.grid = {x, y, 1};
  const uint64_t blocks = (uint64_t)x * y, first = random((uint32_t)blocks);
  for (uint64_t i = 0; i < blocks; ++i) {
    const uint64_t of = (first + i) % blocks;
    b.index = {(uint32_t)(of % x), (uint32_t)(of / x), 0};
    run_block();
  }
}
