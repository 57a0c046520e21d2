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
#include "neuron.h"

struct Shape {
    int64_t steps, batch, channels, length, once;
};

namespace {

struct Plan {
    // Neurons and numbers per channel; channels that are gathered together; neurons that go through time together.
    int64_t neurons, count, group, block;
    explicit Plan(const Shape &s) : neurons(s.batch * s.length), count(s.steps * neurons) {
        group = s.length < 256 ? 256 / s.length : 1;  // memory is read in runs of a kilobyte or more
        block = block_size(s.steps);
    }
    int64_t groups(const Shape &s) const { return (s.channels + group - 1) / group; }
};

struct Room {  // working memory of a thread
    std::vector<float> x, grad, h, y, v, carry, derivative, out;
    std::vector<double> decays;
    Room(const Shape &s, const Plan &p, bool back)
        : x(p.count * p.group), grad(back ? p.count * p.group : 0), h(back ? p.block * s.steps : 0),
          y(p.block * (back ? s.steps : 1)), v(p.block), carry(p.block), derivative(p.block), out(p.block), decays(p.block) {}
};

// Channels c ... c + group - 1 of x into `room`, float32 [T, B * L] each. x has `rows` = T B or, for `once`, B.
void gather(const void *x, int dtype, const Shape &s, const Plan &p, int64_t c, int64_t group, int64_t rows, float *room) {
    for (int64_t row = 0; row < s.steps * s.batch; row++)
        for (int64_t g = 0; g < group; g++) {
            float *to = room + g * p.count + row * s.length;
            const float *from = load(x, dtype, (row % rows * s.channels + c + g) * s.length, s.length, to);
            if (from != to) std::memcpy(to, from, sizeof(float) * s.length);
        }
}

// The reverse: from `room` to x.
void scatter(const float *room, void *x, int dtype, const Shape &s, const Plan &p, int64_t c, int64_t group, int64_t rows) {
    for (int64_t row = 0; row < rows; row++)
        for (int64_t g = 0; g < group; g++) {
            const float *from = room + g * p.count + row * s.length;
            const int64_t at = (row * s.channels + c + g) * s.length;
            if (dtype == FLOAT32)
                std::memcpy(static_cast<float *>(x) + at, from, sizeof(float) * s.length);
            else
                store(from, x, dtype, at, s.length);
        }
}

const int64_t LANES = 16;  // partial sums side by side: the compiler may not reorder a single sum into vectors

inline float total(const float *lanes) {
    float sum = 0.0f;
    for (int64_t k = 0; k < LANES; k++) sum += lanes[k];
    return sum;
}

inline float sum_of(const float *x, int64_t n) {
    float lanes[LANES] = {};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int64_t k = 0; k < LANES; k++) lanes[k] += x[i + k];
    for (int64_t k = 0; i + k < n; k++) lanes[k] += x[i + k];
    return total(lanes);
}

// Sum of (x - mean) (y - other).
inline float sum_of_product(const float *x, const float *y, float mean, float other, int64_t n) {
    float lanes[LANES] = {};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int64_t k = 0; k < LANES; k++) lanes[k] += (x[i + k] - mean) * (y[i + k] - other);
    for (int64_t k = 0; i + k < n; k++) lanes[k] += (x[i + k] - mean) * (y[i + k] - other);
    return total(lanes);
}

// Mean and population variance of `count` numbers: runs of 1024 about their own means in float, merged in double. One sum
// in float would lose digits of a large mean or a long channel.
void statistics(const float *x, int64_t count, double *mean, double *var) {
    double seen = 0.0, average = 0.0, squares = 0.0;
    for (int64_t from = 0; from < count; from += 1024) {
        const int64_t n = count - from < 1024 ? count - from : 1024;
        const float m = sum_of(x + from, n) / n;
        const double squared = sum_of_product(x + from, x + from, m, m, n), away = double(m) - average;
        squares += squared + away * away * seen * n / (seen + n);
        average += away * n / (seen + n);
        seen += n;
    }
    *mean = average;
    *var = squares / seen;
}

inline void normalise(const float *__restrict x, float *__restrict y, int64_t n, float scale, float shift) {
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * scale + shift;
}

// The spikes of one channel [T, B * L], in place of its input.
void fire_channel(Room &room, Step step, float *x, const Shape &s, const Plan &p, float scale, float shift,
                  const Form &form) {
    for (int64_t from = 0; from < p.neurons; from += p.block) {
        const int64_t n = p.neurons - from < p.block ? p.neurons - from : p.block;
        for (int64_t i = 0; i < n; i++) room.v[i] = form.v_reset;
        for (int64_t t = 0; t < s.steps; t++) {
            float *row = x + t * p.neurons + from;
            normalise(row, room.y.data(), n, scale, shift);
            step(room.y.data(), room.v.data(), row, n, form);
        }
    }
}

struct Way {  // the neuron's functions for the backward pass
    Step step;
    Back back;
    Surrogate surrogate;
    bool learn;
};

struct Sums {
    double of_grad = 0.0, of_product = 0.0, of_decay = 0.0;
};

// One channel from dL/ds to dL/dy, in place in `grad`; adds its sums to `sums`.
void back_through_node(Room &room, const Way &way, const float *x, float *grad, const Shape &s, const Plan &p, float scale,
                       float shift, float mean, const Form &form, Sums &sums) {
    for (int64_t from = 0; from < p.neurons; from += p.block) {
        const int64_t n = p.neurons - from < p.block ? p.neurons - from : p.block;
        for (int64_t i = 0; i < n; i++) room.v[i] = form.v_reset, room.carry[i] = 0.0f, room.decays[i] = 0.0;
        for (int64_t t = 0; t < s.steps; t++) {
            normalise(x + t * p.neurons + from, &room.y[t * n], n, scale, shift);
            way.step(&room.y[t * n], room.v.data(), &room.h[t * n], n, form);
        }
        for (int64_t t = s.steps - 1; t >= 0; t--) {
            float *row = grad + t * p.neurons + from;
            if (way.learn && t == 0)
                for (int64_t i = 0; i < n; i++) room.v[i] = form.v_reset;
            else if (way.learn)
                (form.soft ? reset_row<true> : reset_row<false>)(&room.h[(t - 1) * n], room.v.data(), n, form);
            way.surrogate(&room.h[t * n], room.derivative.data(), n, form);
            way.back(&room.h[t * n], room.derivative.data(), row, room.carry.data(), room.out.data(), &room.y[t * n],
                     room.v.data(), room.decays.data(), n, form);
            sums.of_grad += sum_of(room.out.data(), n);
            sums.of_product += sum_of_product(x + t * p.neurons + from, room.out.data(), mean, 0.0f, n);
            std::memcpy(row, room.out.data(), sizeof(float) * n);
        }
        if (way.learn)
            for (int64_t i = 0; i < n; i++) sums.of_decay += room.decays[i];
    }
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
    const Step step = step_of<false>(*form);
    const int64_t rows = s.batch * (s.once ? 1 : s.steps);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Room room(s, p, false);
#pragma omp for schedule(dynamic, share(p.groups(s), threads))
        for (int64_t k = 0; k < p.groups(s); k++) {
            const int64_t first = k * p.group, group = s.channels - first < p.group ? s.channels - first : p.group;
            gather(x, dtype, s, p, first, group, rows, room.x.data());
            for (int64_t c = first; c < first + group; c++) {
                float *channel = &room.x[(c - first) * p.count];
                if (training) {
                    double m, v;
                    statistics(channel, p.count, &m, &v);
                    mean[c] = float(m), var[c] = float(v);
                }
                const double scale = (weight ? weight[c] : 1.0) / std::sqrt(double(var[c]) + eps);
                const double shift = (bias ? bias[c] : 0.0) - double(mean[c]) * scale;
                fire_channel(room, step, channel, s, p, float(scale), float(shift), *form);
            }
            scatter(room.x.data(), spikes, dtype, s, p, first, group, s.steps * s.batch);
        }
    }
}

// Writes dL/dx to gx, and dL/d weight and dL/d bias; returns dL/d decay.
extern "C" double zoo_norm_backward(int dtype, const void *grad, const void *x, void *gx, const Shape *shape, int training,
                                    double eps, const float *weight, const float *bias, const float *mean,
                                    const float *var, float *grad_weight, float *grad_bias, const Form *form,
                                    Surrogate surrogate, int learn, int threads) {
    const Shape s = *shape;
    const Plan p(s);
    const Way way = {step_of<true>(*form), back_of(*form, learn), surrogate, learn != 0};
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
                float *channel = &room.x[(c - first) * p.count], *back = &room.grad[(c - first) * p.count];
                const double inverse = 1.0 / std::sqrt(double(var[c]) + eps), scale = (weight ? weight[c] : 1.0) * inverse;
                const float shift = float((bias ? bias[c] : 0.0) - double(mean[c]) * scale);
                Sums sums;
                back_through_node(room, way, channel, back, s, p, float(scale), shift, mean[c], *form, sums);
                grad_weight[c] = float(sums.of_product * inverse), grad_bias[c] = float(sums.of_grad);
                decays[c] = sums.of_decay;
                const float along = training ? float(sums.of_grad / p.count) : 0.0f;
                const float across = training ? float(sums.of_product * inverse * inverse / p.count) : 0.0f;
                back_through_norm(channel, back, p.count, float(scale), mean[c], along, across);
                for (int64_t i = rows * s.length; i < p.count; i++) back[i % p.neurons] += back[i];  // `once`: of all steps
            }
            scatter(room.grad.data(), gx, dtype, s, p, first, group, rows);
        }
    }
    double sum = 0.0;
    for (double part : decays) sum += part;
    return sum;
}
