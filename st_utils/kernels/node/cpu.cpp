// Integrate-and-fire over [T, n], all threads; loaded by cpu.py. Definition: st_utils/kernels/node/definition.py.
//
//     zoo_forward(FLOAT32, x, spikes, T, n, &form, threads);
//     zoo_backward(FLOAT32, grad, x, gx, T, n, &form, surrogate_sigmoid, learn, threads);
//
// Strips of neurons go through all T steps in registers (neuron.h): forward reads x and writes s once, backward reads x
// and dL/ds and writes dL/dx once.
#include <algorithm>
#include <vector>

#include "neuron.h"

namespace {

struct Task {
    Numbers form;
    Layer layer;
    bool learn;
};

// Computes the neurons from ... to - 1; returns their dL/d decay. `room` is what backward_strip needs.
using Strips = double (*)(const Task &task, int64_t from, int64_t to, Vector *room);

double forward_strips(const Task &task, int64_t from, int64_t to, Vector *) {
    in_strips(task.layer, from, to, [&](const Layer &layer, int64_t, int64_t at, int64_t n) {
        const Layer a = layer;
        const Numbers f = task.form;
        for (int64_t i = at; i < at + n; i += WIDTH)
            forward_strip(
                f, a.steps, [&](int64_t t, Vector *x) { a.read(t, i, x); },
                [&](int64_t t, const Vector *s) { a.write(s, t, i); });
    });
    return 0.0;
}

template <class Slope, bool Learn> double backward_strips(const Task &task, int64_t from, int64_t to, Vector *room) {
    Doubles decay = {};
    in_strips(task.layer, from, to, [&](const Layer &layer, int64_t, int64_t at, int64_t n) {
        const Layer a = layer;
        const Numbers f = task.form;
        for (int64_t i = at; i < at + n; i += WIDTH)
            backward_strip<Learn>(
                f, a.steps, room, Slope(), [&](int64_t t, Vector *x) { a.read(t, i, x), a.early(t, i); },
                [&](int64_t t, Vector *g) { a.read_grad(t, i, g); },
                [&](int64_t t, const Vector *g) { a.write(g, t, i); }, &decay);
    });
    return total(decay);
}

// Shares the neurons out to the threads, a piece of about 16384 numbers at a time. Returns the sum of the pieces' dL/d decay
// in their order: equal for any number of threads.
double all_pieces(const Task &task, Strips strips, int threads) {
    const Layer &a = task.layer;
    const int64_t size = std::max(16384 / a.steps / WIDTH, int64_t(1)) * WIDTH, pieces = (a.neurons + size - 1) / size;
    std::vector<double> sums(pieces);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const Vectors room(a.grad ? ROOM * a.steps : 0);
#pragma omp for schedule(dynamic, share(pieces, threads))
        for (int64_t turn = 0; turn < pieces; turn++) {
            // Back from the end: what was read last may still be in a cache.
            const int64_t piece = a.grad ? pieces - 1 - turn : turn, from = piece * size;
            sums[piece] = strips(task, from, std::min(from + size, a.neurons), room.data);
        }
        fence();
    }
    double sum = 0.0;
    for (double part : sums) sum += part;
    return sum;
}

}  // namespace

extern "C" void zoo_forward(int dtype, const void *x, void *spikes, int64_t steps, int64_t neurons, const Form *form,
                            int threads) {
    const bool past = past_caches(spikes, dtype, steps, neurons);
    all_pieces({Numbers(*form), {dtype, steps, neurons, x, nullptr, spikes, false, past}, false}, forward_strips, threads);
}

// Returns dL/d decay where `learn` asks for it. `surrogate` is one of the functions below.
extern "C" double zoo_backward(int dtype, const void *grad, const void *x, void *gx, int64_t steps, int64_t neurons,
                               const Form *form, Strips surrogate, int learn, int threads) {
    const bool past = past_caches(gx, dtype, steps, neurons);
    return all_pieces({Numbers(*form), {dtype, steps, neurons, x, grad, gx, false, past}, learn != 0}, surrogate, threads);
}

// The backward pass with each surrogate, which Python finds by its name.
#define SURROGATE(name, before, formula)                                                                              \
    extern "C" double surrogate_##name(const Task &task, int64_t from, int64_t to, Vector *room) {                    \
        const Strips learn = backward_strips<surrogates::name, true>, given = backward_strips<surrogates::name, false>; \
        return (task.learn ? learn : given)(task, from, to, room);                                                    \
    }
#include "surrogates.h"
