// Convolution of spikes by additions; loaded by sparse_conv.py.
//
// Images are [images, height, width, channels] float32 without gaps; the convolution has stride 1 and as many rows and
// columns out as in. What is zero in its input is met once, when the channels that are not are listed. Forward, the
// output of a pixel is the sum of the weight's rows that its lists name. For the weight's gradient, the row of an input
// channel is the sum of the output's gradients at the pixels where the channel is not zero. Both sum a strip of output
// channels in registers, over a panel of such rows that the second cache holds. The order of every sum is that of the
// numbers in memory, however many threads there are.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

// Of one convolution; the kernel's rows and columns are odd.
extern "C" struct Shape {
    int64_t images, height, width, in, out, rows, columns;
};

namespace {

typedef float Vector __attribute__((vector_size(LANES * sizeof(float))));
const int64_t FLOAT = sizeof(float);
const int64_t PANEL = 256 * 1024;      // bytes of the second cache that a panel may fill
const int64_t PIXELS = 256;            // whose lists a thread keeps at a time
const int64_t FEWEST = 4, MOST = 8;    // vectors of a strip
const int64_t AHEAD = 8;               // rows of a panel that are fetched ahead
const int64_t COPIED = 16;             // entries that lists are copied by

// The output channels in strips; the last one may have fewer than `width`.
struct Strips {
    int64_t vectors = MOST, width, count;
    explicit Strips(int64_t out) {
        for (int64_t v = MOST - 1; v >= FEWEST; v--)
            if (padded(out, v) < padded(out, vectors)) vectors = v;
        width = vectors * LANES, count = padded(out, vectors) / width;
    }
    static int64_t padded(int64_t out, int64_t v) { return (out + v * LANES - 1) / (v * LANES) * v * LANES; }
};

// Floats that begin at a cache line.
struct Lines {
    std::unique_ptr<float[]> memory;
    float *data;
    explicit Lines(int64_t n) : memory(new float[n + 16]) {
        data = reinterpret_cast<float *>((reinterpret_cast<uintptr_t>(memory.get()) + 63) & ~uintptr_t(63));
    }
};

#ifdef __AVX2__
// For each byte, the places of the bits that are set.
struct SetBits {
    alignas(16) uint16_t places[256][8] = {};
    SetBits() {
        for (int byte = 0; byte < 256; byte++)
            for (int bit = 0, n = 0; bit < 8; bit++)
                if (byte >> bit & 1) places[byte][n++] = uint16_t(bit);
    }
};
const SetBits SET_BITS;
#endif

// The channels that are not zero, and their values, pixel after pixel.
struct Lists {
    std::vector<int32_t> start;
    std::vector<uint16_t> channel;
    std::vector<float> value;
    bool ones = true;  // every value is 1

    void clear(int64_t pixels, int64_t channels) {
        start.assign(1, 0), ones = true;
        if (int64_t(value.size()) >= pixels * channels) return;
        channel.resize(pixels * channels + COPIED), value.resize(pixels * channels);
    }

    void add(const float *x, int64_t channels) {
        const int32_t first = start.back();
        int32_t n = first;
        int64_t c = 0;
#ifdef __AVX2__
        __m256 other = _mm256_setzero_ps();
        for (; c + 8 <= channels; c += 8) {
            const __m256 numbers = _mm256_loadu_ps(x + c);
            const __m256 listed = _mm256_cmp_ps(numbers, _mm256_setzero_ps(), _CMP_NEQ_UQ);
            const __m256 not_one = _mm256_cmp_ps(numbers, _mm256_set1_ps(1.0f), _CMP_NEQ_UQ);
            other = _mm256_or_ps(other, _mm256_and_ps(listed, not_one));
            const int byte = _mm256_movemask_ps(listed);
            const __m128i places = _mm_load_si128(reinterpret_cast<const __m128i *>(SET_BITS.places[byte]));
            const __m128i channels_of = _mm_add_epi16(places, _mm_set1_epi16(int16_t(c)));
            _mm_storeu_si128(reinterpret_cast<__m128i *>(channel.data() + n), channels_of);
            n += __builtin_popcount(byte);
        }
        ones &= _mm256_movemask_ps(other) == 0;
#endif
        for (; c < channels; c++) {
            channel[n] = uint16_t(c);
            n += x[c] != 0.0f;
            ones &= x[c] == 0.0f || x[c] == 1.0f;
        }
        for (int32_t i = first; i < n; i++) value[i] = x[channel[i]];
        start.push_back(n);
    }
};

// to = from + the n rows of the panel that `row` names, times their values if these are not all 1. `row` may be read
// AHEAD entries past its end.
template <int VECTORS, bool ONES>
void add_rows(const float *panel, const uint16_t *row, const float *value, int64_t n, const float *from, float *to) {
    const Vector *rows = reinterpret_cast<const Vector *>(panel);
    Vector sum[VECTORS];
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) std::memcpy(&sum[v], from + v * LANES, sizeof(Vector));
    for (int64_t i = 0; i < n; i++) {
        const Vector *numbers = rows + int64_t(row[i]) * VECTORS;
        const char *later = reinterpret_cast<const char *>(rows + int64_t(row[i + AHEAD]) * VECTORS);
#pragma GCC unroll 8
        for (int64_t line = 0; line < int64_t(VECTORS * sizeof(Vector)); line += 64) __builtin_prefetch(later + line);
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) sum[v] += ONES ? numbers[v] : numbers[v] * value[i];
    }
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) std::memcpy(to + v * LANES, &sum[v], sizeof(Vector));
}

using AddRows = void (*)(const float *, const uint16_t *, const float *, int64_t, const float *, float *);
template <bool ONES> AddRows add_rows_of(int64_t vectors) {
    const AddRows all[] = {add_rows<4, ONES>, add_rows<5, ONES>, add_rows<6, ONES>, add_rows<7, ONES>, add_rows<8, ONES>};
    return all[vectors - FEWEST];
}
AddRows add_rows_of(int64_t vectors, bool ones) { return ones ? add_rows_of<true>(vectors) : add_rows_of<false>(vectors); }

// Every number of the weight `[out, in, rows, columns]`, of these strides, and its place in the panels
// `[strip, tap, in, width]`.
template <class Work> void each_weight(const int64_t *strides, const Shape &s, const Strips &strips, int threads, Work work) {
    const int64_t taps = s.rows * s.columns, jobs = strips.count * taps, tile = 16;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t job = 0; job < jobs; job++) {
        const int64_t first = job / taps * strips.width, n = std::min(strips.width, s.out - first), tap = job % taps;
        const int64_t at = first * strides[0] + tap / s.columns * strides[2] + tap % s.columns * strides[3];
        for (int64_t c0 = 0; c0 < s.in; c0 += tile)
            for (int64_t o = 0; o < n; o++)
                for (int64_t c = c0; c < std::min(c0 + tile, s.in); c++)
                    work(at + o * strides[0] + c * strides[1], (job * s.in + c) * strips.width + o);
    }
}

// -- forward ------------------------------------------------------------------------------------------------------
struct Forward {
    const Shape s;
    const Strips strips;
    const float *x, *panels, *bias;  // bias: [strips.count * strips.width]
    float *out;
    int64_t taps = s.rows * s.columns, up = s.rows / 2, left = s.columns / 2, tap_size = s.in * strips.width;
    int64_t together = std::max<int64_t>(1, std::min(taps, PANEL / (tap_size * FLOAT)));  // taps of a panel

    // What a thread works with.
    struct Room {
        Lists lists;
        int64_t first;                // row of images that the lists begin with
        std::vector<uint16_t> row;    // of a pixel and all taps of a panel
        std::vector<float> value;
        float partial[MOST * LANES] = {};
        explicit Room(const Forward &f) : row(f.together * f.s.in + COPIED), value(f.together * f.s.in) {}
    };

    // Rows of images, counted through all of them, row0 to before row1.
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

    // The rows of a panel that a pixel's output is the sum of, from the lists of the pixels around it: how many.
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
// Whole images, or some rows of one, whose gradients fit a panel; each with a margin of zeros, as wide as the kernel
// reaches. And, channel after channel, the pixels of the panel where it is not zero.
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
    int64_t most = PANEL / (strips.width * FLOAT), whole = (s.height + 2 * up) * wide;  // pixels of a panel, an image
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

    // A strip of output channels and the input channels first to before last.
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

// out `[images, height, width, out]`; the weight has these four strides, `bias` may be null.
extern "C" void zoo_sparse_forward(const float *x, const float *weight, const int64_t *strides, const float *bias,
                                   float *out, const Shape *shape, int threads) {
    const Shape &s = *shape;
    const Strips strips(s.out);
    Lines panels(strips.count * s.rows * s.columns * s.in * strips.width);
    if (s.out % strips.width) {  // what the last strip has too much
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

// The gradient of the weight, of these strides, from that of the output.
extern "C" void zoo_sparse_weight(const float *x, const float *grad, float *grad_weight, const int64_t *strides,
                                  const Shape *shape, int threads) {
    const Shape &s = *shape;
    const Strips strips(s.out);
    Lines sums(strips.count * s.rows * s.columns * s.in * strips.width);
    const Weight weight{s, strips, x, grad, sums.data};
    std::vector<Part> parts = weight.parts();
    const int64_t shares = (threads + strips.count - 1) / strips.count;  // of the input channels
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
