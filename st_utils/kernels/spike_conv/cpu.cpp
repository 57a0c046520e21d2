// Convolution of spikes by additions; loaded by op.py. Definition: st_utils/kernels/spike_conv/definition.py.
//
// Images are [images, height, width, channels] float32 without gaps; the convolution has stride 1 and as many rows and
// columns out as in. With the lists of what is not zero in x:
//
//     out[p] = bias + sum over taps r and listed channels c at p + r of x[p + r, c] weight[r, c]           (forward)
//     dL/d weight[r, c] = sum over the listed pixels q of channel c of x[q, c] dL/d out[q - r]             (gradient)
//
// where weight[r, c] and dL/d out[q] are rows of output channels. Both sum a strip of output channels in registers, over
// a panel of such rows that the second-level cache holds. The order of every sum is that of the numbers in memory, so
// that any number of threads gives the same bits.
#include "panels.h"

namespace {

const int64_t PIXELS = 256;  // whose lists a thread keeps at a time: they stay in its cache

// -- forward ------------------------------------------------------------------------------------------------------
struct Forward {
    const Shape s;
    const Strips strips;
    const float *x, *panels, *bias;  // x [images, height, width, in], bias [strips.count * strips.width]
    float *out;                      // [images, height, width, out]
    int64_t taps = s.rows * s.columns, up = s.rows / 2, left = s.columns / 2, tap_size = s.in * strips.width;
    int64_t together = std::max<int64_t>(1, std::min(taps, PANEL / (tap_size * FLOAT)));  // taps per panel

    struct Room {  // working memory of a thread
        Lists lists;
        int64_t first;                // the row of images where the lists begin
        std::vector<uint16_t> row;    // the panel rows of one pixel, over all taps of a panel
        std::vector<float> value;     // and their values
        float partial[MOST * LANES] = {};
        explicit Room(const Forward &f) : row(f.together * f.s.in + COPIED), value(f.together * f.s.in) {}
    };

    // The output of the rows row0 ... row1 - 1, counted through all images.
    void compute(int64_t row0, int64_t row1, Room &room) const {
        room.first = std::max<int64_t>(0, row0 - up);
        const int64_t last = std::min(s.images * s.height, row1 + up);
        room.lists.clear((last - room.first) * s.width, s.in);
        for (int64_t p = room.first * s.width; p < last * s.width; p++) room.lists.add(x + p * s.in, s.in);
        const AddRows add = add_rows_of(strips.vectors, room.lists.ones);
        for (int64_t strip = 0; strip < strips.count; strip++)
            for (int64_t tap = 0; tap < taps; tap += together)
                for (int64_t row = row0; row < row1; row++)
                    for (int64_t column = 0; column < s.width; column++) add_taps(add, row, column, strip, tap, room);
    }

    // Add up a pixel's output channels of one strip over the taps of one panel; the first panel begins with the bias.
    void add_taps(AddRows add, int64_t row, int64_t column, int64_t strip, int64_t tap, Room &room) const {
        const int64_t channel = strip * strips.width, n = std::min(strips.width, s.out - channel);
        float *to = out + (row * s.width + column) * s.out + channel, *sums = n < strips.width ? room.partial : to;
        if (tap && sums != to) std::memcpy(sums, to, n * FLOAT);
        const float *from = tap ? sums : bias + channel, *panel = panels + (strip * taps + tap) * tap_size;
        const Lists &lists = room.lists;
        if (taps == 1) {
            const int64_t pixel = (row - room.first) * s.width + column;
            const int32_t at = lists.start[pixel];
            const int64_t many = lists.start[pixel + 1] - at;
            add(panel, lists.channel.data() + at, lists.value.data() + at, many, from, sums);
        } else {
            const int64_t many = gather(row, column, tap, room);
            add(panel, room.row.data(), room.value.data(), many, from, sums);
        }
        if (sums != to) std::memcpy(to, sums, n * FLOAT);
    }

    // List the panel rows that a pixel's output is the sum of, from the lists of the pixels around it; returns how many.
    int64_t gather(int64_t row, int64_t column, int64_t tap, Room &room) const {
        const int64_t y = row % s.height;
        int64_t n = 0;
        for (int64_t i = 0; i < std::min(together, taps - tap); i++) {
            const int64_t down = (tap + i) / s.columns - up, right = (tap + i) % s.columns - left;
            if (y + down < 0 || y + down >= s.height || column + right < 0 || column + right >= s.width) continue;
            const int64_t pixel = (row + down - room.first) * s.width + column + right;
            const int32_t at = room.lists.start[pixel], many = room.lists.start[pixel + 1] - at;
            for (int64_t j = 0; j < many; j += COPIED)
                for (int64_t k = 0; k < COPIED; k++)
                    room.row[n + j + k] = uint16_t(room.lists.channel[at + j + k] + i * s.in);
            if (!room.lists.ones) std::memcpy(room.value.data() + n, room.lists.value.data() + at, many * FLOAT);
            n += many;
        }
        return n;
    }
};

// -- the weight's gradient ----------------------------------------------------------------------------------------
// Whole images, or some rows of one, whose output gradients fit a panel with a margin of zeros as wide as the kernel
// reaches, so that no tap needs a bounds check. And channel after channel, the panel's pixels where x is not zero.
struct Part {
    int64_t image, images, row, rows;
    std::vector<int32_t> start;
    std::vector<uint16_t> pixel;
    std::vector<float> value;  // empty where all are 1
};

struct Weight {
    const Shape s;
    const Strips strips;
    const float *x, *grad;
    float *sums;  // [strip, tap, in, width]
    int64_t taps = s.rows * s.columns, up = s.rows / 2, left = s.columns / 2, wide = s.width + 2 * left;
    int64_t most = PANEL / (strips.width * FLOAT), whole = (s.height + 2 * up) * wide;  // pixels per panel, per image
    int64_t images = std::max<int64_t>(1, most / whole);
    int64_t rows = whole <= most ? s.height : std::min(s.height, std::max<int64_t>(1, most / wide - 2 * up));
    int64_t panel_size = images * (rows + 2 * up) * wide * strips.width;

    std::vector<Part> parts() const {
        std::vector<Part> all;
        for (int64_t i = 0; i < s.images; i += images)
            for (int64_t r = 0; r < s.height; r += rows)
                all.push_back({i, std::min(images, s.images - i), r, std::min(rows, s.height - r), {}, {}, {}});
        return all;
    }

    // The part's lists by channel, from `lists` by pixel: a counting sort.
    void find(Part &part, Lists &lists) const {
        const int64_t high = part.rows + 2 * up, pixels = part.images * part.rows * s.width;
        const float *from = x + (part.image * s.height + part.row) * s.width * s.in;  // of one image, or whole ones
        lists.clear(pixels, s.in);
        for (int64_t p = 0; p < pixels; p++) lists.add(from + p * s.in, s.in);
        const int64_t n = lists.start.back();
        part.start.assign(s.in + 1, 0);
        for (int64_t j = 0; j < n; j++) part.start[lists.channel[j] + 1]++;
        for (int64_t c = 0; c < s.in; c++) part.start[c + 1] += part.start[c];
        std::vector<int32_t> next(part.start.begin(), part.start.end() - 1);
        part.pixel.resize(n + AHEAD);
        part.value.resize(lists.ones ? 0 : n);
        for (int64_t p = 0; p < pixels; p++) {
            const int64_t row = p / s.width, image = row / part.rows;
            const int64_t place = (image * high + row % part.rows + up) * wide + p % s.width + left;
            for (int32_t j = lists.start[p]; j < lists.start[p + 1]; j++) {
                const int32_t at = next[lists.channel[j]]++;
                part.pixel[at] = uint16_t(place);
                if (!lists.ones) part.value[at] = lists.value[j];
            }
        }
    }

    // The output gradients of n channels of a part, with its margin of zeros, into a panel.
    void fill(float *panel, const Part &part, int64_t channel, int64_t n) const {
        const int64_t high = part.rows + 2 * up, width = strips.width;
        for (int64_t r = 0; r < part.images * high; r++, panel += wide * width) {
            const int64_t y = part.row + r % high - up;
            if (y < 0 || y >= s.height) {
                std::memset(panel, 0, wide * width * FLOAT);
                continue;
            }
            const float *from = grad + ((part.image + r / high) * s.height + y) * s.width * s.out + channel;
            std::memset(panel, 0, left * width * FLOAT);
            std::memset(panel + (left + s.width) * width, 0, left * width * FLOAT);
            for (int64_t c = 0; c < s.width; c++) std::memcpy(panel + (left + c) * width, from + c * s.out, n * FLOAT);
        }
    }

    // The sums of one strip of output channels, for the input channels first ... last - 1.
    void compute(const std::vector<Part> &parts, int64_t strip, int64_t first, int64_t last, float *panel) const {
        const int64_t channel = strip * strips.width, n = std::min(strips.width, s.out - channel);
        float *to = sums + strip * taps * s.in * strips.width;
        for (int64_t tap = 0; tap < taps; tap++)
            std::memset(to + (tap * s.in + first) * strips.width, 0, (last - first) * strips.width * FLOAT);
        if (n < strips.width) std::memset(panel, 0, panel_size * FLOAT);
        for (const Part &part : parts) {
            fill(panel, part, channel, n);
            const AddRows add = add_rows_of(strips.vectors, part.value.empty());
            for (int64_t c = first; c < last; c++) {
                const int32_t at = part.start[c], many = part.start[c + 1] - at;
                const float *value = part.value.data() + at;  // not read where all are 1
                for (int64_t tap = 0; many && tap < taps; tap++) {
                    const int64_t shift = (up - tap / s.columns) * wide + left - tap % s.columns;
                    float *sum = to + (tap * s.in + c) * strips.width;
                    add(panel + shift * strips.width, part.pixel.data() + at, value, many, sum, sum);
                }
            }
        }
    }
};

}  // namespace

// x -> out, with the weight [out, in, rows, columns] of these strides; `bias` may be null.
extern "C" void zoo_sparse_forward(const float *x, const float *weight, const int64_t *strides, const float *bias,
                                   float *out, const Shape *shape, int threads) {
    const Shape &s = *shape;
    const Strips strips(s.out);
    Lines panels(strips.count * s.rows * s.columns * s.in * strips.width);
    if (s.out % strips.width) {  // the padding of the last strip is summed too: zeros, not what memory holds
        const int64_t size = s.rows * s.columns * s.in * strips.width;
        std::memset(panels.data + (strips.count - 1) * size, 0, size * FLOAT);
    }
    each_weight(strides, s, strips, threads, [&](int64_t from, int64_t to) { panels.data[to] = weight[from]; });
    std::vector<float> padded(strips.count * strips.width);
    if (bias) std::copy(bias, bias + s.out, padded.begin());
    const Forward forward{s, strips, x, panels.data, padded.data(), out};
    const int64_t all = s.images * s.height, rows = std::max<int64_t>(1, PIXELS / s.width);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Forward::Room room(forward);
#pragma omp for schedule(dynamic)
        for (int64_t row = 0; row < all; row += rows) forward.compute(row, std::min(row + rows, all), room);
    }
}

// dL/d weight, of these strides, from x and dL/d out.
extern "C" void zoo_sparse_weight(const float *x, const float *grad, float *grad_weight, const int64_t *strides,
                                  const Shape *shape, int threads) {
    const Shape &s = *shape;
    const Strips strips(s.out);
    Lines sums(strips.count * s.rows * s.columns * s.in * strips.width);
    const Weight weight{s, strips, x, grad, sums.data};
    std::vector<Part> parts = weight.parts();
    const int64_t shares = (threads + strips.count - 1) / strips.count;  // parts of the input channels: a job per thread
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Lists lists;
#pragma omp for schedule(dynamic)
        for (int64_t p = 0; p < int64_t(parts.size()); p++) weight.find(parts[p], lists);
        Lines panel(weight.panel_size);
#pragma omp for schedule(dynamic)
        for (int64_t job = 0; job < strips.count * shares; job++) {
            const int64_t share = job % shares;
            weight.compute(parts, job / shares, share * s.in / shares, (share + 1) * s.in / shares, panel.data);
        }
    }
    each_weight(strides, s, strips, threads, [&](int64_t to, int64_t from) { grad_weight[to] = sums.data[from]; });
}
