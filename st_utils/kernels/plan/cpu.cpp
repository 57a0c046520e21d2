// Steps of a network, one after the other, in one call; loaded by library.py. Definition: torch's own operators, see there.
//
// One team of threads does all steps: no thread is woken up for a step, and none goes back to Python between two.
#include "steps.h"

// The counters of all signals that are written (Signal::set) must be zero.
extern "C" void zoo_run(const Step *steps, int64_t count, int threads) {
    together(threads, [&](Team &team) {
        Rooms rooms;
        for (int64_t i = 0; i < count; i++) run(steps[i], team, rooms);
    });
}

// The size of packed weights, in numbers, and the weights packed; in whole numbers, `weight` has them as float32.
extern "C" int64_t zoo_packed_size(const Shape *shape) { return Weights(*shape, nullptr).size(); }
extern "C" void zoo_pack(const float *weight, const int64_t *strides, Number *packed, const Shape *shape, int threads) {
    Weights(*shape, packed).pack(*shape, weight, strides, threads);
}
