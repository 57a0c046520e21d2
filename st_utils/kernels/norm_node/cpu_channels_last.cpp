// Batch norm and integrate-and-fire as one, over x [T, B, L, C] in this memory order, channels last, L = rows times
// columns; loaded by cpu.py. Definition: st_utils/kernels/norm_node/definition.py; formulas: cpu_channels_first.cpp.
//
// Memory is rows of C channels, one row per position: statistics are sums over rows, and everything else walks through
// memory in its order. With `once`, x and dL/dx are [B, L, C] and stand for T equal steps. Sums are taken in pieces that
// depend on the sizes alone, so that any number of threads gives the same bits. A second pass goes through the pieces
// from the end: what the first pass read last may still be in a cache.
#include <algorithm>
#include <numeric>
#include <vector>

#include "neuron.h"

struct Shape {
    int64_t steps, batch, channels, length, once;
};

namespace {

const int64_t RUN = 64;  // rows that are summed about their own mean

// Rows and neurons per step. A tile is the fewest whole rows that are whole strips as well: a strip then begins at one of few
// places of it, and what holds per channel is kept per number of a tile. Pieces are whole tiles, but for the last one.
struct Plan {
    int64_t rows, channels, neurons, tile, pieces;
    explicit Plan(const Shape &s) : rows(s.batch * s.length), channels(s.channels), neurons(rows * channels) {
        tile = std::lcm(channels, int64_t(WIDTH));
        const int64_t wanted = s.steps * neurons / 65536, tiles = (neurons + tile - 1) / tile;
        pieces = std::min(std::clamp(wanted, int64_t(1), int64_t(64)), tiles);
    }
    int64_t first(int64_t piece) const {  // neuron of a piece
        const int64_t tiles = (neurons + tile - 1) / tile;
        return std::min(piece * tiles / pieces * tile, neurons);
    }
    int64_t next(int64_t j) const { return j + WIDTH == tile ? 0 : j + WIDTH; }  // where the next strip begins in a tile
    // number(c) of each channel c, for all of a tile.
    template <class Number> std::vector<float> tiled(Number number) const {
        std::vector<float> all(tile);
        for (int64_t i = 0; i < tile; i++) all[i] = float(number(i % channels));
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
    const auto row = [&](int64_t r) -> const float * {
        if (dtype == FLOAT32) return static_cast<const float *>(x) + r * width;
        convert(x, dtype, r * width, room.data(), FLOAT32, 0, width);
        return room.data();
    };
    for (int64_t from = first; from < end; from += RUN) {
        const int64_t n = end - from < RUN ? end - from : RUN;
        mean.assign(width, 0.0f), squares.assign(width, 0.0f);
        for (int64_t r = from; r < from + n; r++) add_row(row(r), mean.data(), width);
        for (float &m : mean) m /= n;
        for (int64_t r = from; r < from + n; r++) add_squares(row(r), mean.data(), squares.data(), width);
        all.add(n, mean.data(), squares.data());
    }
    return all;
}

void statistics(const void *x, int dtype, const Plan &p, int64_t steps, float *mean, float *var, int threads) {
    std::vector<Moments> parts(p.pieces * steps, Moments(0));
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(dynamic)
    for (int64_t k = 0; k < p.pieces * steps; k++) {
        const int64_t start = k % steps * p.rows, piece = k / steps;
        const int64_t first = p.first(piece) / p.channels, end = p.first(piece + 1) / p.channels;
        parts[k] = moments(x, dtype, p.channels, start + first, start + end);
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

// x scale + shift of a strip that begins at j of a tile.
INLINE void normalise(Vector *x, const Affine &affine, int64_t j) {
    EACH x[k] = x[k] * read<Vector>(&affine.scale[j + k * LANES]) + read<Vector>(&affine.shift[j + k * LANES]);
}

struct Sums {  // per number of a tile, over a piece: of dL/dy, and of dL/dy (x - mean)
    std::vector<double> of_grad, of_product;
    double of_decay = 0.0;
    explicit Sums(int64_t n) : of_grad(n), of_product(n) {}
};

struct Task {  // the backward pass
    const Plan p;
    const Numbers form;
    const Layer layer;
    const Affine affine;
    const std::vector<float> mean;
    const bool batch, learn;
};

inline void add(double *sum, const Vector &x) {
    const Doubles all = read<Doubles>(sum) + __builtin_convertvector(x, Doubles);
    std::memcpy(sum, &all, sizeof(all));
}

// A piece from dL/ds back through the neuron. Writes dL/dy, summed over the steps if `once`; with constant statistics
// dL/dx = scale dL/dy at once.
using Piece = void (*)(const Task &task, int64_t piece, Sums &sums, Vector *room);

template <class Slope, bool Learn> void back_through_node(const Task &task, int64_t piece, Sums &sums, Vector *room) {
    const int64_t start = task.p.first(piece), tile = task.p.tile;
    Doubles decay = {};
    in_strips(task.layer, start, task.p.first(piece + 1), [&](const Layer &layer, int64_t first, int64_t from, int64_t n) {
        const Layer a = layer;
        const Numbers f = task.form;
        for (int64_t i = from, j = (first - start) % tile; i < from + n; i += WIDTH, j = task.p.next(j)) {
            Vector sum[K] = {}, product[K] = {};
            const auto scaled = [&](Vector *g) {
                if (!task.batch) EACH g[k] *= read<Vector>(&task.affine.scale[j + k * LANES]);
            };
            backward_strip<Learn>(
                f, a.steps, room, Slope(),
                [&](int64_t t, Vector *y) { a.read(t, i, y), a.early(t, i), normalise(y, task.affine, j); },
                [&](int64_t t, Vector *g) { a.read_grad(t, i, g); },
                [&](int64_t t, Vector *g) {
                    Vector x[K];
                    a.read(t, i, x);
                    EACH sum[k] += g[k], product[k] += (x[k] - read<Vector>(&task.mean[j + k * LANES])) * g[k];
                    if (a.once) return;
                    scaled(g);
                    a.write(g, t, i);
                },
                &decay);
            EACH add(&sums.of_grad[j + k * LANES], sum[k]), add(&sums.of_product[j + k * LANES], product[k]);
            if (!a.once) continue;
            scaled(sum);
            a.write(sum, 0, i);
        }
    });
    sums.of_decay = total(decay);
}

// From dL/dy to dL/dx, in place, where mean and var are the batch's own: `layer` is x and, as its gradient and result, gx.
void back_through_norm(const Task &task, const std::vector<float> &along, const std::vector<float> &across, int threads) {
    const Plan &p = task.p;
    const int64_t steps = task.layer.once ? 1 : task.layer.steps, size = size_of(task.layer.dtype);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(dynamic)
    for (int64_t turn = p.pieces * steps - 1; turn >= 0; turn--) {
        const int64_t start = p.first(turn / steps), offset = turn % steps * p.neurons * size;
        char *gx = static_cast<char *>(task.layer.out) + offset;
        const char *x = static_cast<const char *>(task.layer.x) + offset;
        const Layer step = {task.layer.dtype, 1, p.neurons, x, gx, gx, false, false};
        in_strips(step, start, p.first(turn / steps + 1), [&](const Layer &a, int64_t first, int64_t from, int64_t n) {
            for (int64_t i = from, j = (first - start) % p.tile; i < from + n; i += WIDTH, j = p.next(j)) {
                Vector x[K], g[K];
                a.read(0, i, x), a.read_grad(0, i, g);
                EACH {
                    const auto of = [&](const std::vector<float> &tiled) { return read<Vector>(&tiled[j + k * LANES]); };
                    g[k] = of(task.affine.scale) * (g[k] - of(along) - (x[k] - of(task.mean)) * of(across));
                }
                a.write(g, 0, i);
            }
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
    const Numbers numbers(*form);
    const Layer whole = {dtype, s.steps, p.neurons, x, nullptr, spikes, s.once != 0,
                         past_caches(spikes, dtype, s.steps, p.neurons)};
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp for schedule(dynamic)
        for (int64_t piece = p.pieces - 1; piece >= 0; piece--)
            in_strips(whole, p.first(piece), p.first(piece + 1), [&](const Layer &layer, int64_t first, int64_t from, int64_t n) {
                const Layer a = layer;
                const Numbers f = numbers;
                for (int64_t i = from, j = (first - p.first(piece)) % p.tile; i < from + n; i += WIDTH, j = p.next(j))
                    forward_strip(
                        f, a.steps, [&](int64_t t, Vector *y) { a.read(t, i, y), normalise(y, affine, j); },
                        [&](int64_t t, const Vector *fired) { a.write(fired, t, i); });
            });
        fence();
    }
}

// Writes dL/dx to gx, and dL/d weight and dL/d bias; returns dL/d decay.
extern "C" double zoo_norm_backward(int dtype, const void *grad, const void *x, void *gx, const Shape *shape, int training,
                                    double eps, const float *weight, const float *bias, const float *mean,
                                    const float *var, float *grad_weight, float *grad_bias, const Form *form,
                                    Piece surrogate, int learn, int threads) {
    const Plan p(*shape);
    const bool once = shape->once != 0, batch = training != 0;
    const bool past = !once && !batch && past_caches(gx, dtype, shape->steps, p.neurons);
    const Task task = {p, Numbers(*form), {dtype, shape->steps, p.neurons, x, grad, gx, once, past},
                       Affine(p, eps, weight, bias, mean, var), p.tiled([=](int64_t c) { return mean[c]; }), batch, learn != 0};
    std::vector<Sums> parts(p.pieces, Sums(p.tile));
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const Vectors room(ROOM * shape->steps);
#pragma omp for schedule(dynamic)
        for (int64_t piece = 0; piece < p.pieces; piece++) surrogate(task, piece, parts[piece], room.data);
        fence();
    }
    Sums all(p.channels);
    for (const Sums &part : parts) {
        all.of_decay += part.of_decay;
        for (int64_t i = 0; i < p.tile; i++)
            all.of_grad[i % p.channels] += part.of_grad[i], all.of_product[i % p.channels] += part.of_product[i];
    }
    const double count = double(p.rows) * (once ? 1 : shape->steps);
    auto inverse = [=](int64_t c) { return 1.0 / std::sqrt(double(var[c]) + eps); };
    for (int64_t c = 0; c < p.channels; c++)
        grad_weight[c] = float(all.of_product[c] * inverse(c)), grad_bias[c] = float(all.of_grad[c]);
    if (batch)
        back_through_norm(task, p.tiled([&](int64_t c) { return all.of_grad[c] / count; }),
                          p.tiled([&](int64_t c) { return all.of_product[c] * inverse(c) * inverse(c) / count; }), threads);
    return all.of_decay;
}

// The backward pass with each surrogate, which Python finds by its name.
#define SURROGATE(name, before, formula)                                                                              \
    extern "C" void surrogate_##name(const Task &task, int64_t piece, Sums &sums, Vector *room) {                     \
        const Piece learned = back_through_node<surrogates::name, true>, given = back_through_node<surrogates::name, false>; \
        (task.learn ? learned : given)(task, piece, sums, room);                                                      \
    }
#include "surrogates.h"
