// Integrate-and-fire over [T, n], all threads; loaded by cpu.py. Definition: st_utils/kernels/node/definition.py.
//
//     zoo_forward(FLOAT32, x, spikes, T, n, &form, threads);
//     zoo_backward(FLOAT32, grad, x, gx, T, n, &form, surrogate_sigmoid, learn, threads);
//
// Forward and backward of one step, with their formulas, are in neuron.h. Here neurons go in blocks through all T steps,
// so that v stays in a cache: forward reads x and writes s once, backward reads x and dL/ds and writes dL/dx once. The
// backward pass computes h_t [T, block] again from x, then goes back through time.
#include <algorithm>

#include "neuron.h"

namespace {

// Results of 16 MiB and more are written around the caches: an eighth faster, and no slower for who reads them.
bool beyond_caches(int dtype, int64_t count) { return dtype == FLOAT32 && count >= 1 << 22; }

struct Room {  // working memory of a thread, for one block
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
        if (from >= n) {  // of the next block, which lies before: rows are too short for the processor to prefetch them
            fetch<false>(x, dtype, at - n, n), fetch<false>(grad, dtype, at - n, n);
            if (!past) fetch<true>(gx, dtype, at - n, n);
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

// -- few steps in float32 -------------------------------------------------------------------------------------
// T <= FEW: a narrow strip of neurons goes through all T steps at once. The processor prefetches so few rows by itself,
// and reads ahead while it computes; where long pieces of a row are loaded and then computed with, it can't.
const int64_t FEW = 6, STRIP = 64, STRIPS = 64 * STRIP;

template <int C, bool Soft, bool Strict>
void forward_strips(const float *__restrict x, float *__restrict spikes, int64_t steps, int64_t neurons, int64_t from,
                    int64_t to, const Form &form) {
    const Form f = form;
    const bool past = beyond_caches(FLOAT32, steps * neurons);
    alignas(64) float v[STRIP], room[STRIP];
    for (int64_t i = from; i < to; i += STRIP) {
        for (int64_t j = 0; j < STRIP; j++) v[j] = f.v_reset;
        for (int64_t at = i; at < steps * neurons; at += neurons) {
            float *out = place(spikes, FLOAT32, at, room, past);
            for (int64_t j = 0; j < STRIP; j++) {
                const float h = charge<C>(v[j], x[at + j], f), s = fires(h - f.threshold, Strict);
                v[j] = reset<Soft>(h, s, f), out[j] = s;
            }
            store(room, spikes, FLOAT32, at, STRIP, past);
        }
    }
}

template <int C, bool Soft, bool Detach, bool Learn>
double backward_strips(const float *__restrict grad, const float *__restrict x, float *__restrict gx, int64_t steps,
                       int64_t neurons, int64_t from, int64_t to, Surrogate surrogate, const Form &form) {
    const Form f = form;
    const bool past = beyond_caches(FLOAT32, steps * neurons);
    alignas(64) float h[FEW * STRIP], slope[FEW * STRIP], v[STRIP], carry[STRIP], room[STRIP];
    double decays[STRIP] = {};
    for (int64_t i = from; i < to; i += STRIP) {
        for (int64_t j = 0; j < STRIP; j++) v[j] = f.v_reset, carry[j] = 0.0f;
        for (int64_t t = 0; t < steps; t++) {
            const int64_t at = t * neurons + i;
            fetch<false>(x, FLOAT32, at + STRIP, STRIP);  // then what the backward half of this strip needs
            fetch<false>(grad, FLOAT32, at, STRIP);
            if (!past) fetch<true>(gx, FLOAT32, at, STRIP);
            for (int64_t j = 0; j < STRIP; j++) {
                const float now = charge<C>(v[j], x[at + j], f);
                v[j] = reset<Soft>(now, fires(now - f.threshold, f.strict), f), h[t * STRIP + j] = now;
            }
        }
        surrogate(h, slope, steps * STRIP, f);
        for (int64_t t = steps - 1; t >= 0; t--) {
            const int64_t at = t * neurons + i, row = t * STRIP;
            if (Learn && t)
                reset_row<Soft>(h + row - STRIP, v, STRIP, f);
            else if (Learn)
                for (int64_t j = 0; j < STRIP; j++) v[j] = f.v_reset;
            float *out = place(gx, FLOAT32, at, room, past);
            back_row<C, Soft, Detach, Learn>(h + row, slope + row, grad + at, carry, out, x + at, v, decays, STRIP, f);
            store(room, gx, FLOAT32, at, STRIP, past);
        }
    }
    double sum = 0.0;
    for (int64_t j = 0; j < STRIP; j++) sum += decays[j];
    return sum;
}

using Forward = void (*)(const float *, float *, int64_t, int64_t, int64_t, int64_t, const Form &);
using Backward = double (*)(const float *, const float *, float *, int64_t, int64_t, int64_t, int64_t, Surrogate, const Form &);

Forward forward_of(const Form &form) {
    return choose(form, form.strict, [](auto charge, auto soft, auto strict) -> Forward {
        return forward_strips<decltype(charge)::value, decltype(soft)::value, decltype(strict)::value>;
    });
}

template <bool Learn> Backward backward_of(const Form &form) {
    return choose(form, form.detach, [](auto charge, auto soft, auto detach) -> Backward {
        return backward_strips<decltype(charge)::value, decltype(soft)::value, decltype(detach)::value, Learn>;
    });
}

// How many neurons a thread takes at a time, and how many of n go in whole strips.
int64_t piece(bool few, int64_t steps) { return few ? STRIPS : block_size(steps); }
int64_t in_strips(bool few, int64_t n) { return few ? n / STRIP * STRIP : 0; }

}  // namespace

extern "C" void zoo_forward(int dtype, const void *x, void *spikes, int64_t steps, int64_t neurons, const Form *form,
                            int threads) {
    const bool few = dtype == FLOAT32 && steps <= FEW;
    const int64_t size = piece(few, 1), blocks = (neurons + size - 1) / size;
    const Step step = step_of<false>(*form);
    const Forward strips = forward_of(*form);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Room room(few ? STRIP : size, 0);
#pragma omp for schedule(dynamic, share(blocks, threads))
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t from = b * size, n = std::min(size, neurons - from), whole = in_strips(few, n);
            if (whole)
                strips(static_cast<const float *>(x), static_cast<float *>(spikes), steps, neurons, from, from + whole, *form);
            if (whole < n) forward_block(room, step, x, spikes, dtype, steps, neurons, from + whole, n - whole, *form);
        }
        fence();
    }
}

// Returns dL/d decay where `learn` asks for it, summed in double in the order of the blocks: equal for any `threads`.
extern "C" double zoo_backward(int dtype, const void *grad, const void *x, void *gx, int64_t steps, int64_t neurons,
                               const Form *form, Surrogate surrogate, int learn, int threads) {
    const bool few = dtype == FLOAT32 && steps <= FEW;
    const int64_t size = piece(few, steps), blocks = (neurons + size - 1) / size;
    const Step step = step_of<true>(*form);
    const Back back = back_of(*form, learn);
    const Backward strips = learn ? backward_of<true>(*form) : backward_of<false>(*form);
    std::vector<double> sums(blocks);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Room room(few ? STRIP : size, steps);
#pragma omp for schedule(dynamic, share(blocks, threads))
        for (int64_t turn = 0; turn < blocks; turn++) {
            const int64_t b = blocks - 1 - turn;  // from the end: what was read last may still be in a cache
            const int64_t from = b * size, n = std::min(size, neurons - from), whole = in_strips(few, n);
            if (whole)
                sums[b] = strips(static_cast<const float *>(grad), static_cast<const float *>(x), static_cast<float *>(gx),
                                 steps, neurons, from, from + whole, surrogate, *form);
            if (whole < n)
                sums[b] += backward_block(room, step, back, surrogate, learn, grad, x, gx, dtype, steps, neurons,
                                          from + whole, n - whole, *form);
        }
        fence();
    }
    double sum = 0.0;
    for (double part : sums) sum += part;
    return sum;
}
