// Integrate-and-fire over [T, N] in memory order, on all threads: forward reads x once and writes spikes once,
// backward reads x and the gradient once and writes the input's gradient once. Plain C ABI, loaded by cpu.py.
#include "neuron.h"

namespace {

// 16 MiB and more: written past the caches, an eighth faster forward and backward, and no slower for the reader.
bool beyond_caches(int dtype, int64_t count) { return dtype == FLOAT32 && count >= 1 << 22; }

struct Room {  // what a thread works in, for one block
    std::vector<float> h, v, carry, derivative, x, grad, out;
    std::vector<double> decays;
    Room(int64_t block, int64_t rows_of_h)
        : h(block * rows_of_h), v(block), carry(block), derivative(block), x(block), grad(block), out(block), decays(block) {}
};

void forward_block(Room &room, Step step, const void *x, void *spikes, int dtype, int64_t steps, int64_t neurons,
                   int64_t from, int64_t n, const Form &form) {
    const bool past = beyond_caches(dtype, steps * neurons);
    for (int64_t i = 0; i < n; i++) room.v[i] = form.v_reset;
    for (int64_t t = 0; t < steps; t++) {
        const int64_t at = t * neurons + from;
        if (from + n < neurons) {
            fetch<false>(x, dtype, at + n, n);
            if (!past) fetch<true>(spikes, dtype, at + n, n);
        }
        step(load(x, dtype, at, n, room.x.data()), room.v.data(), place(spikes, dtype, at, room.out.data(), past), n, form);
        store(room.out.data(), spikes, dtype, at, n, past);
    }
}

double backward_block(Room &room, Step step, Back back, Surrogate surrogate, bool learn, const void *grad, const void *x,
                      void *gx, int dtype, int64_t steps, int64_t neurons, int64_t from, int64_t n, const Form &form) {
    const bool past = beyond_caches(dtype, steps * neurons);
    for (int64_t i = 0; i < n; i++) room.v[i] = form.v_reset, room.carry[i] = 0.0f, room.decays[i] = 0.0;
    for (int64_t t = 0; t < steps; t++)
        step(load(x, dtype, t * neurons + from, n, room.x.data()), room.v.data(), &room.h[t * n], n, form);
    for (int64_t t = steps - 1; t >= 0; t--) {
        const int64_t at = t * neurons + from;
        const float *current = nullptr;
        if (from + n < neurons) {  // what the next block needs: rows are too short for the processor to foresee it
            fetch<false>(x, dtype, at + n, n), fetch<false>(grad, dtype, at + n, n);
            if (!past) fetch<true>(gx, dtype, at + n, n);
        }
        if (learn) {
            current = load(x, dtype, at, n, room.x.data());
            if (t == 0)
                for (int64_t i = 0; i < n; i++) room.v[i] = form.v_reset;
            else
                (form.soft ? reset_row<true> : reset_row<false>)(&room.h[(t - 1) * n], room.v.data(), n, form);
        }
        surrogate(&room.h[t * n], room.derivative.data(), n, form);
        back(&room.h[t * n], room.derivative.data(), load(grad, dtype, at, n, room.grad.data()), room.carry.data(),
             place(gx, dtype, at, room.out.data(), past), current, room.v.data(), room.decays.data(), n, form);
        store(room.out.data(), gx, dtype, at, n, past);
    }
    double sum = 0.0;
    if (learn)
        for (int64_t i = 0; i < n; i++) sum += room.decays[i];
    return sum;
}

}  // namespace

extern "C" void zoo_forward(int dtype, const void *x, void *spikes, int64_t steps, int64_t neurons, const Form *form,
                            int threads) {
    const int64_t size = block_size(1), blocks = (neurons + size - 1) / size;
    const Step step = step_of<false>(*form);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Room room(size, 0);
#pragma omp for schedule(dynamic, share(blocks, threads))
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t from = b * size, n = neurons - from < size ? neurons - from : size;
            forward_block(room, step, x, spikes, dtype, steps, neurons, from, n, *form);
        }
        fence();
    }
}

// Returns the gradient of the decay where `learn` asks for it: summed in double, in the order of the blocks.
extern "C" double zoo_backward(int dtype, const void *grad, const void *x, void *gx, int64_t steps, int64_t neurons,
                               const Form *form, Surrogate surrogate, int learn, int threads) {
    const int64_t size = block_size(steps), blocks = (neurons + size - 1) / size;
    const Step step = step_of<true>(*form);
    const Back back = back_of(*form, learn);
    std::vector<double> sums(blocks);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Room room(size, steps);
#pragma omp for schedule(dynamic, share(blocks, threads))
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t from = b * size, n = neurons - from < size ? neurons - from : size;
            sums[b] = backward_block(room, step, back, surrogate, learn, grad, x, gx, dtype, steps, neurons, from, n, *form);
        }
        fence();
    }
    double sum = 0.0;
    for (double part : sums) sum += part;
    return sum;
}
