// Batch norm and integrate-and-fire as one, over x [T, B, L, C] in this memory order, channels last, L = rows times
// columns; loaded by cpu.py. Definition: st_utils/kernels/norm_node/definition.py; formulas: cpu_channels_first.cpp.
//
// Memory is rows of C channels, one row per position: statistics are sums over rows, and everything else walks through
// memory in its order. With `once`, x and dL/dx are [B, L, C] and stand for T equal steps. Sums are taken in pieces that
// depend on the sizes alone, so that any number of threads gives the same bits. A second pass goes through the pieces
// from the end: what the first pass read last may still be in a cache.
#include "neuron.h"

struct Shape {
    int64_t steps, batch, channels, length, once;
};

namespace {

const int64_t BLOCK = 256, RUN = 64;  // numbers that go through time together; rows that are summed about their own mean

struct Plan {
    int64_t rows, channels, neurons, pieces, block;  // rows and neurons per step; a block is whole rows, or part of one
    explicit Plan(const Shape &s) : rows(s.batch * s.length), channels(s.channels), neurons(rows * channels) {
        const int64_t wanted = s.steps * neurons / 65536;
        pieces = wanted < 1 ? 1 : wanted > 64 ? 64 : wanted;
        if (pieces > rows) pieces = rows;
        block = channels < BLOCK ? BLOCK / channels * channels : BLOCK;
    }
    int64_t first(int64_t piece) const { return piece * rows / pieces; }
    // Calls work(from, n, c) for each block of a piece: n neurons from index `from` on, the first one of channel c.
    template <class Work> void blocks(int64_t piece, Work work) const {
        const int64_t end = first(piece + 1) * channels;
        for (int64_t from = first(piece) * channels, n; from < end; from += n) {
            const int64_t c = from % channels, left = channels < BLOCK ? end - from : channels - c;
            n = left < block ? left : block;
            work(from, n, c);
        }
    }
    // number(c) of each channel, repeated for all rows of a block: inner loops then need no channel index.
    template <class Number> std::vector<float> tiled(Number number) const {
        std::vector<float> all(channels < BLOCK ? block : channels);
        for (size_t i = 0; i < all.size(); i++) all[i] = float(number(int64_t(i) % channels));
        return all;
    }
};

// -- statistics ----------------------------------------------------------------------------------------------
struct Moments {  // of the `seen` rows so far: each channel's mean, and the sum of squares about it
    int64_t seen = 0;
    std::vector<double> mean, squares;
    explicit Moments(int64_t channels) : mean(channels), squares(channels) {}
    template <class Number> void add(int64_t n, const Number *m, const Number *q) {
        const double weight = double(n) / (seen + n), across = weight * seen;
        for (size_t c = 0; c < mean.size(); c++) {
            const double away = m[c] - mean[c];
            mean[c] += away * weight;
            squares[c] += q[c] + away * away * across;
        }
        seen += n;
    }
};

void add_row(const float *__restrict x, float *__restrict sum, int64_t n) {
    for (int64_t i = 0; i < n; i++) sum[i] += x[i];
}

void add_squares(const float *__restrict x, const float *__restrict mean, float *__restrict sum, int64_t n) {
    for (int64_t i = 0; i < n; i++) sum[i] += (x[i] - mean[i]) * (x[i] - mean[i]);
}

Moments moments(const void *x, int dtype, int64_t width, int64_t first, int64_t end) {
    Moments all(width);
    std::vector<float> room(width), mean(width), squares(width);
    for (int64_t from = first; from < end; from += RUN) {
        const int64_t n = end - from < RUN ? end - from : RUN;
        mean.assign(width, 0.0f), squares.assign(width, 0.0f);
        for (int64_t r = from; r < from + n; r++) add_row(load(x, dtype, r * width, width, room.data()), mean.data(), width);
        for (float &m : mean) m /= n;
        for (int64_t r = from; r < from + n; r++)
            add_squares(load(x, dtype, r * width, width, room.data()), mean.data(), squares.data(), width);
        all.add(n, mean.data(), squares.data());
    }
    return all;
}

void statistics(const void *x, int dtype, const Plan &p, int64_t steps, float *mean, float *var, int threads) {
    std::vector<Moments> parts(p.pieces * steps, Moments(0));
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(dynamic)
    for (int64_t k = 0; k < p.pieces * steps; k++) {
        const int64_t start = k % steps * p.rows, piece = k / steps;
        parts[k] = moments(x, dtype, p.channels, start + p.first(piece), start + p.first(piece + 1));
    }
    Moments all(p.channels);
    for (const Moments &part : parts) all.add(part.seen, part.mean.data(), part.squares.data());
    for (int64_t c = 0; c < p.channels; c++) mean[c] = float(all.mean[c]), var[c] = float(all.squares[c] / all.seen);
}

// -- norm, neuron, and back ------------------------------------------------------------------------------------
struct Affine {  // the norm as y = x scale + shift
    std::vector<float> scale, shift;
    Affine(const Plan &p, double eps, const float *weight, const float *bias, const float *mean, const float *var) {
        auto factor = [=](int64_t c) { return (weight ? weight[c] : 1.0) / std::sqrt(double(var[c]) + eps); };
        scale = p.tiled(factor);
        shift = p.tiled([=](int64_t c) { return (bias ? bias[c] : 0.0) - double(mean[c]) * factor(c); });
    }
};

void normalise(const float *__restrict x, float *__restrict y, const float *__restrict scale, const float *__restrict shift,
               int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * scale[i] + shift[i];
}

struct Room {  // working memory of a thread, for one block
    std::vector<float> x, y, h, v, carry, derivative, grad, out, all, product;
    std::vector<double> decays;
    Room(int64_t block, int64_t steps)
        : x(block), y(block * steps), h(block * steps), v(block), carry(block), derivative(block), grad(block), out(block),
          all(block), product(block), decays(block) {}
};

struct Sums {  // per channel, over some rows: of dL/dy, and of dL/dy (x - mean)
    std::vector<double> of_grad, of_product;
    double of_decay = 0.0;
    explicit Sums(int64_t channels) : of_grad(channels), of_product(channels) {}
};

struct Task {  // the backward pass
    const Shape s;
    const Plan p;
    const Form form;
    const Affine affine;
    const std::vector<float> mean;
    const void *grad, *x;
    void *gx;
    const Step step;
    const Back back;
    const Surrogate surrogate;
    const int dtype;
    const bool once, batch, learn;

    bool past() const { return dtype == FLOAT32 && !once && !batch && s.steps * p.neurons >= 1 << 22; }
    int64_t at(int64_t t, int64_t from) const { return once ? from : t * p.neurons + from; }
};

void add_sums(const float *__restrict x, const float *__restrict mean, const float *__restrict out, float *__restrict sum,
              float *__restrict product, int64_t n) {
    for (int64_t i = 0; i < n; i++) sum[i] += out[i], product[i] += (x[i] - mean[i]) * out[i];
}

void times(float *__restrict x, const float *__restrict factor, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] *= factor[i];
}

// One block from dL/ds back through the neuron. Writes dL/dy to gx, summed over the steps if `once`; with constant
// statistics dL/dx = scale dL/dy at once.
void back_block(Room &room, const Task &k, Sums &sums, int64_t from, int64_t n, int64_t c) {
    const float *scale = &k.affine.scale[c], *mean = &k.mean[c];
    float *all = room.all.data(), *product = room.product.data();
    for (int64_t i = 0; i < n; i++) {
        room.v[i] = k.form.v_reset, room.carry[i] = all[i] = product[i] = 0.0f;
        room.decays[i] = 0.0;
    }
    for (int64_t t = 0; t < k.s.steps; t++) {
        normalise(load(k.x, k.dtype, k.at(t, from), n, room.x.data()), &room.y[t * n], scale, &k.affine.shift[c], n);
        k.step(&room.y[t * n], room.v.data(), &room.h[t * n], n, k.form);
    }
    for (int64_t t = k.s.steps - 1; t >= 0; t--) {
        const int64_t here = t * k.p.neurons + from;
        if (from + n < k.p.neurons) {
            fetch<false>(k.grad, k.dtype, here + n, n);
            if (!k.once) fetch<false>(k.x, k.dtype, here + n, n);
        }
        if (k.learn && t == 0)
            for (int64_t i = 0; i < n; i++) room.v[i] = k.form.v_reset;
        else if (k.learn)
            (k.form.soft ? reset_row<true> : reset_row<false>)(&room.h[(t - 1) * n], room.v.data(), n, k.form);
        float *out = place(k.gx, k.dtype, here, room.out.data(), k.once || k.past());
        k.surrogate(&room.h[t * n], room.derivative.data(), n, k.form);
        k.back(&room.h[t * n], room.derivative.data(), load(k.grad, k.dtype, here, n, room.grad.data()), room.carry.data(), out,
               &room.y[t * n], room.v.data(), room.decays.data(), n, k.form);
        add_sums(load(k.x, k.dtype, k.at(t, from), n, room.x.data()), mean, out, all, product, n);
        if (k.once) continue;
        if (!k.batch) times(out, scale, n);
        store(out, k.gx, k.dtype, here, n, k.past());
    }
    const int64_t width = k.p.channels;
    for (int64_t i = 0; i < n; i += width)  // row by row, or the part of one row
        for (int64_t j = 0; j < width && i + j < n; j++)
            sums.of_grad[c + j] += all[i + j], sums.of_product[c + j] += product[i + j];
    if (k.learn)
        for (int64_t i = 0; i < n; i++) sums.of_decay += room.decays[i];
    if (!k.once) return;
    if (!k.batch) times(all, scale, n);
    store(all, k.gx, k.dtype, from, n, true);
}

void back_row_of_norm(const float *__restrict x, const float *grad, float *gx, const float *__restrict scale,
                      const float *__restrict mean, const float *__restrict along, const float *__restrict across, int64_t n) {
    for (int64_t i = 0; i < n; i++) gx[i] = scale[i] * (grad[i] - along[i] - (x[i] - mean[i]) * across[i]);
}

// From dL/dy to dL/dx, in place in gx, where mean and var are the batch's own.
void back_through_norm(const Task &k, const std::vector<float> &along, const std::vector<float> &across, int threads) {
    const int64_t steps = k.once ? 1 : k.s.steps;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        std::vector<float> x(k.p.block), grad(k.p.block), out(k.p.block);
#pragma omp for schedule(dynamic)
        for (int64_t j = k.p.pieces * steps - 1; j >= 0; j--)
            k.p.blocks(j / steps, [&](int64_t from, int64_t n, int64_t c) {
                const int64_t at = j % steps * k.p.neurons + from;
                const float *row = load(k.x, k.dtype, at, n, x.data()), *before = load(k.gx, k.dtype, at, n, grad.data());
                float *to = place(k.gx, k.dtype, at, out.data());
                back_row_of_norm(row, before, to, &k.affine.scale[c], &k.mean[c], &along[c], &across[c], n);
                store(to, k.gx, k.dtype, at, n);
            });
    }
}

}  // namespace

// In training, writes the batch's mean and population variance to `mean` and `var`; else normalises with these. weight and
// bias may be null.
extern "C" void zoo_norm_forward(int dtype, const void *x, void *spikes, const Shape *shape, int training, double eps,
                                 const float *weight, const float *bias, float *mean, float *var, const Form *form,
                                 int threads) {
    const Shape s = *shape;
    const Plan p(s);
    if (training) statistics(x, dtype, p, s.once ? 1 : s.steps, mean, var, threads);
    const Affine affine(p, eps, weight, bias, mean, var);
    const Step step = step_of<false>(*form);
    const bool past = dtype == FLOAT32 && s.steps * p.neurons >= 1 << 22;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Room room(p.block, 1);
#pragma omp for schedule(dynamic)
        for (int64_t piece = p.pieces - 1; piece >= 0; piece--)
            p.blocks(piece, [&](int64_t from, int64_t n, int64_t c) {
                for (int64_t i = 0; i < n; i++) room.v[i] = form->v_reset;
                for (int64_t t = 0; t < s.steps; t++) {
                    const int64_t here = t * p.neurons + from;
                    if (!s.once && from + n < p.neurons) fetch<false>(x, dtype, here + n, n);
                    normalise(load(x, dtype, s.once ? from : here, n, room.x.data()), room.y.data(), &affine.scale[c],
                              &affine.shift[c], n);
                    step(room.y.data(), room.v.data(), place(spikes, dtype, here, room.out.data(), past), n, *form);
                    store(room.out.data(), spikes, dtype, here, n, past);
                }
            });
        fence();
    }
}

// Writes dL/dx to gx, and dL/d weight and dL/d bias; returns dL/d decay.
extern "C" double zoo_norm_backward(int dtype, const void *grad, const void *x, void *gx, const Shape *shape, int training,
                                    double eps, const float *weight, const float *bias, const float *mean,
                                    const float *var, float *grad_weight, float *grad_bias, const Form *form,
                                    Surrogate surrogate, int learn, int threads) {
    const Plan p(*shape);
    const Task task = {*shape, p, *form, Affine(p, eps, weight, bias, mean, var), p.tiled([=](int64_t c) { return mean[c]; }),
                       grad, x, gx, step_of<true>(*form), back_of(*form, learn), surrogate, dtype, shape->once != 0,
                       training != 0, learn != 0};
    std::vector<Sums> parts(p.pieces, Sums(p.channels));
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Room room(p.block, shape->steps);
#pragma omp for schedule(dynamic)
        for (int64_t piece = 0; piece < p.pieces; piece++)
            p.blocks(piece, [&](int64_t from, int64_t n, int64_t c) { back_block(room, task, parts[piece], from, n, c); });
        fence();
    }
    Sums all(p.channels);
    for (const Sums &part : parts) {
        all.of_decay += part.of_decay;
        for (int64_t c = 0; c < p.channels; c++) all.of_grad[c] += part.of_grad[c], all.of_product[c] += part.of_product[c];
    }
    const double count = double(p.rows) * (task.once ? 1 : shape->steps);
    auto inverse = [=](int64_t c) { return 1.0 / std::sqrt(double(var[c]) + eps); };
    for (int64_t c = 0; c < p.channels; c++)
        grad_weight[c] = float(all.of_product[c] * inverse(c)), grad_bias[c] = float(all.of_grad[c]);
    if (training)
        back_through_norm(task, p.tiled([&](int64_t c) { return all.of_grad[c] / count; }),
                          p.tiled([&](int64_t c) { return all.of_product[c] * inverse(c) * inverse(c) / count; }), threads);
    return all.of_decay;
}
