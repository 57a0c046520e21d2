// Batch norm and integrate-and-fire as one, over x [T, B, C, L] in this memory order, L = rows times columns; loaded by
// cpu.py. Definition: st_utils/kernels/norm_node/definition.py.
//
//     y = x scale + shift,   scale = weight / sqrt(var + eps),   shift = bias - mean scale,   then the neuron: see neuron.h
//     dL/d bias = sum of dL/dy,   dL/d weight = sum of dL/dy (x - mean) / sqrt(var + eps)
//     dL/dx = scale (dL/dy - along - (x - mean) across),   along = dL/d bias / N,   across = dL/d weight / (N sqrt(var + eps))
//
// with N = T B L numbers per channel; along = across = 0 where mean and var are constants. A few channels at a time are
// gathered into a cache, as float32 [T, B * L] each; there they are normalised, integrated and fired, so that x is read
// from memory once and s written once. Backward does the same with x and dL/ds. With `once`, x and dL/dx are [B, C, L]
// and stand for T equal steps.
#include <algorithm>
#include <vector>

#include "neuron.h"

struct Shape {
    int64_t steps, batch, channels, length, once;
};

namespace {

struct Plan {
    // Neurons and numbers per channel; from one step's neurons to the next's in `Room`, whole strips; channels that are
    // gathered together.
    int64_t neurons, count, stride, size, group;
    explicit Plan(const Shape &s)
        : neurons(s.batch * s.length), count(s.steps * neurons), stride((neurons + WIDTH - 1) / WIDTH * WIDTH),
          size(s.steps * stride) {
        group = s.length < 256 ? 256 / s.length : 1;  // memory is read in runs of a kilobyte or more
    }
    int64_t groups(const Shape &s) const { return (s.channels + group - 1) / group; }
};

struct Room {  // working memory of a thread: float32 [T, stride] per channel
    std::vector<float> x, grad;
    Vectors strip;
    Room(const Shape &s, const Plan &p, bool back)
        : x(p.size * p.group), grad(back ? p.size * p.group : 0), strip(back ? ROOM * s.steps : 0) {}
};

// Channels c ... c + group - 1 of x into `room`, with zeros where a strip is padded. x has `rows` = T B or, for `once`, B.
void gather(const void *x, int dtype, const Shape &s, const Plan &p, int64_t c, int64_t group, int64_t rows, float *room) {
    for (int64_t g = 0; g < group; g++)
        for (int64_t t = 0; t < s.steps; t++, room += p.stride) {
            for (int64_t b = 0; b < s.batch; b++) {
                const int64_t row = (t * s.batch + b) % rows;
                convert(x, dtype, (row * s.channels + c + g) * s.length, room, FLOAT32, b * s.length, s.length);
            }
            std::fill(room + p.neurons, room + p.stride, 0.0f);
        }
}

// The reverse: the first `steps` steps from `room` to x.
void scatter(const float *room, void *x, int dtype, const Shape &s, const Plan &p, int64_t c, int64_t group, int64_t steps) {
    for (int64_t g = 0; g < group; g++)
        for (int64_t row = 0; row < steps * s.batch; row++) {
            const int64_t from = g * p.size + row / s.batch * p.stride + row % s.batch * s.length;
            convert(room, FLOAT32, from, x, dtype, (row * s.channels + c + g) * s.length, s.length);
        }
}

// Sum of x, and of (x - mean)^2: LANES partial sums side by side, as no compiler may reorder a single one.
template <class Term> float sum_of(const float *x, int64_t n, Term term) {
    Vector sums = {};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) sums += term(read<Vector>(x + i));
    for (int lane = 0; i < n; i++, lane++) sums[lane] += term(fill(x[i]))[0];
    float sum = 0.0f;
    for (int lane = 0; lane < LANES; lane++) sum += sums[lane];
    return sum;
}

// Mean and population variance of a channel: runs of 1024 about their own means in float, merged in double. One sum in
// float would lose digits of a large mean or a long channel.
void statistics(const float *x, const Shape &s, const Plan &p, double *mean, double *var) {
    double seen = 0.0, average = 0.0, squares = 0.0;
    for (int64_t t = 0; t < s.steps; t++)
        for (int64_t from = 0; from < p.neurons; from += 1024) {
            const int64_t n = std::min(p.neurons - from, int64_t(1024));
            const float *run = x + t * p.stride + from;
            const float m = sum_of(run, n, [](Vector v) { return v; }) / n;
            const double squared = sum_of(run, n, [=](Vector v) { return (v - m) * (v - m); }), away = double(m) - average;
            squares += squared + away * away * seen * n / (seen + n);
            average += away * n / (seen + n);
            seen += n;
        }
    *mean = average;
    *var = squares / seen;
}

struct Affine {  // the norm of one channel as y = x scale + shift
    double inverse, factor;
    float mean, scale, shift;
    Affine(int64_t c, double eps, const float *weight, const float *bias, const float *mean, const float *var)
        : inverse(1.0 / std::sqrt(double(var[c]) + eps)), factor((weight ? weight[c] : 1.0) * inverse), mean(mean[c]),
          scale(float(factor)), shift(float((bias ? bias[c] : 0.0) - double(mean[c]) * factor)) {}
};

// The spikes of one channel, in place of its input.
void fire_channel(float *x, const Shape &s, const Plan &p, const Affine &affine, const Numbers &form) {
    const Numbers f = form;
    const float scale = affine.scale, shift = affine.shift;
    for (int64_t i = 0; i < p.stride; i += WIDTH)
        forward_strip(
            f, s.steps,
            [&](int64_t t, Vector *y) { EACH y[k] = read<Vector>(x + t * p.stride + i + k * LANES) * scale + shift; },
            [&](int64_t t, const Vector *spikes) { EACH store(spikes[k], x, FLOAT32, t * p.stride + i + k * LANES); });
}

struct Sums {
    double of_grad = 0.0, of_product = 0.0, of_decay = 0.0;
};

// One channel from dL/ds to dL/dy, in place in `grad`; returns its sums of dL/dy, dL/dy (x - mean) and dL/d decay.
using Channel = Sums (*)(const float *x, float *grad, const Shape &s, const Plan &p, const Affine &affine, const Numbers &form,
                         bool learn, Vector *room);

template <class Slope, bool Learn>
Sums back_through_node(const float *x, float *grad, const Shape &s, const Plan &p, const Affine &affine, const Numbers &form,
                       Vector *room) {
    const Numbers f = form;
    const float scale = affine.scale, shift = affine.shift, mean = affine.mean;
    Doubles of_grad = {}, of_product = {}, of_decay = {};
    for (int64_t i = 0; i < p.stride; i += WIDTH)
        backward_strip<Learn>(
            f, s.steps, room, Slope(),
            [&](int64_t t, Vector *y) { EACH y[k] = read<Vector>(x + t * p.stride + i + k * LANES) * scale + shift; },
            [&](int64_t t, Vector *g) { EACH g[k] = read<Vector>(grad + t * p.stride + i + k * LANES); },
            [&](int64_t t, const Vector *g) {
                Vector sum = {}, product = {};
                EACH {
                    const int64_t at = t * p.stride + i + k * LANES;
                    sum += g[k], product += (read<Vector>(x + at) - mean) * g[k];
                    store(g[k], grad, FLOAT32, at);
                }
                of_grad += __builtin_convertvector(sum, Doubles), of_product += __builtin_convertvector(product, Doubles);
            },
            &of_decay);
    return {total(of_grad), total(of_product), total(of_decay)};
}

// One channel from dL/dy to dL/dx, in place in `grad`.
void back_through_norm(const float *__restrict x, float *__restrict grad, int64_t count, float scale, float mean,
                       float along, float across) {
    for (int64_t i = 0; i < count; i++) grad[i] = scale * (grad[i] - along - (x[i] - mean) * across);
}

}  // namespace

// In training, writes the batch's mean and population variance to `mean` and `var`; else normalises with these. weight and
// bias may be null.
extern "C" void zoo_norm_forward(int dtype, const void *x, void *spikes, const Shape *shape, int training, double eps,
                                 const float *weight, const float *bias, float *mean, float *var, const Form *form,
                                 int threads) {
    const Shape s = *shape;
    const Plan p(s);
    const Numbers numbers(*form);
    const int64_t rows = s.batch * (s.once ? 1 : s.steps);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Room room(s, p, false);
#pragma omp for schedule(dynamic, share(p.groups(s), threads))
        for (int64_t k = 0; k < p.groups(s); k++) {
            const int64_t first = k * p.group, group = s.channels - first < p.group ? s.channels - first : p.group;
            gather(x, dtype, s, p, first, group, rows, room.x.data());
            for (int64_t c = first; c < first + group; c++) {
                float *channel = &room.x[(c - first) * p.size];
                if (training) {
                    double m, v;
                    statistics(channel, s, p, &m, &v);
                    mean[c] = float(m), var[c] = float(v);
                }
                fire_channel(channel, s, p, Affine(c, eps, weight, bias, mean, var), numbers);
            }
            scatter(room.x.data(), spikes, dtype, s, p, first, group, s.steps);
        }
    }
}

// Writes dL/dx to gx, and dL/d weight and dL/d bias; returns dL/d decay.
extern "C" double zoo_norm_backward(int dtype, const void *grad, const void *x, void *gx, const Shape *shape, int training,
                                    double eps, const float *weight, const float *bias, const float *mean,
                                    const float *var, float *grad_weight, float *grad_bias, const Form *form,
                                    Channel surrogate, int learn, int threads) {
    const Shape s = *shape;
    const Plan p(s);
    const Numbers numbers(*form);
    const int64_t rows = s.batch * (s.once ? 1 : s.steps);
    std::vector<double> decays(s.channels);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Room room(s, p, true);
#pragma omp for schedule(dynamic, share(p.groups(s), threads))
        for (int64_t k = 0; k < p.groups(s); k++) {
            const int64_t first = k * p.group, group = s.channels - first < p.group ? s.channels - first : p.group;
            gather(x, dtype, s, p, first, group, rows, room.x.data());
            gather(grad, dtype, s, p, first, group, s.steps * s.batch, room.grad.data());
            for (int64_t c = first; c < first + group; c++) {
                float *channel = &room.x[(c - first) * p.size], *back = &room.grad[(c - first) * p.size];
                const Affine affine(c, eps, weight, bias, mean, var);
                const Sums sums = surrogate(channel, back, s, p, affine, numbers, learn, room.strip.data);
                grad_weight[c] = float(sums.of_product * affine.inverse), grad_bias[c] = float(sums.of_grad);
                decays[c] = sums.of_decay;
                const float along = training ? float(sums.of_grad / p.count) : 0.0f;
                const float across = training ? float(sums.of_product * affine.inverse * affine.inverse / p.count) : 0.0f;
                back_through_norm(channel, back, p.size, affine.scale, mean[c], along, across);
                if (s.once)  // of all steps
                    for (int64_t i = p.stride; i < p.size; i++) back[i % p.stride] += back[i];
            }
            scatter(room.grad.data(), gx, dtype, s, p, first, group, s.once ? 1 : s.steps);
        }
    }
    double sum = 0.0;
    for (double part : decays) sum += part;
    return sum;
}

// The backward pass with each surrogate, which Python finds by its name.
#define SURROGATE(name, before, formula)                                                                              \
    extern "C" Sums surrogate_##name(const float *x, float *grad, const Shape &s, const Plan &p, const Affine &affine, \
                                     const Numbers &form, bool learn, Vector *room) {                                 \
        const auto learned = back_through_node<surrogates::name, true>, given = back_through_node<surrogates::name, false>; \
        return (learn ? learned : given)(x, grad, s, p, affine, form, room);                                          \
    }
#include "surrogates.h"
