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
