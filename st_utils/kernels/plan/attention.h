// Attention between spikes: q (k' v) of each head, in integers.
//
//     out[n] = outer * (the sum of kv[c] for all c of which q[n] has a spike),   kv[c, d] = inner * |{m: k[m, c] and v[m, d]}|
//
// Counts are exact, whatever the order of their sums.
#pragma once
#include "signals.h"

// Groups of tokens that attend to one another: the pixels groups[g] + tokens[n], in each head of channels.
extern "C" struct Attention {
    int64_t groups, tokens, heads;
    const int64_t *group_pixels, *token_pixels;
    float inner, outer;
};

namespace {

// The bits `first` ... `first + n - 1` (n <= 64) of a string.
inline uint64_t bits_at(const uint16_t *string, int64_t first, int64_t n) {
    const int64_t word = first / 64, shift = first % 64;
    uint64_t bits = word_of(string, word) >> shift;
    if (shift && shift + n > 64) bits |= word_of(string, word + 1) << (64 - shift);
    return n == 64 ? bits : bits & ((uint64_t(1) << n) - 1);
}

// 64 x 64 bits, transposed in place: bit j of word i becomes bit i of word j (Warren, Hacker's Delight, 7-3).
inline void transpose(uint64_t *rows) {
    uint64_t mask = 0x00000000ffffffffull;
    for (int j = 32; j; j >>= 1, mask ^= mask << j)
        for (int k = 0; k < 64; k = (k + j + 1) & ~j) {
            const uint64_t swapped = ((rows[k] >> j) ^ rows[k + j]) & mask;
            rows[k] ^= swapped << j, rows[k + j] ^= swapped;
        }
}

struct AttentionRoom {
    std::vector<uint64_t> k, v;  // [word of tokens, channel]
    std::vector<int64_t> both;
    std::vector<float> kv;
};

// The channels of one head over the tokens of one group: for each channel a row of bits of tokens, in words.
inline void tokens_of_channels(const Signal &x, const Attention &a, int64_t group, int64_t first, int64_t width,
                               std::vector<uint64_t> &rows) {
    const int64_t words = (a.tokens + 63) / 64, pitch = (width + 63) / 64 * 64;
    rows.resize(words * pitch);
    for (int64_t word = 0; word < words; word++)
        for (int64_t c = 0; c < width; c += 64) {
            uint64_t *square = rows.data() + word * pitch + c;
            const int64_t n = std::min<int64_t>(64, a.tokens - word * 64), bits = std::min<int64_t>(64, width - c);
            for (int64_t i = 0; i < n; i++)
                square[i] = bits_at(string_of(x, 0, a.group_pixels[group] + a.token_pixels[word * 64 + i]), first + c, bits);
            std::fill(square + n, square + 64, uint64_t(0));
            transpose(square);
        }
}

// One head of one group.
inline void attend(const Signal &q, const Signal &k, const Signal &v, const Signal &out, const Attention &a, int64_t group,
                   int64_t head, AttentionRoom &room) {
    const int64_t width = q.channels / a.heads, first = head * width, words = (a.tokens + 63) / 64;
    const int64_t channels = (width + 63) / 64 * 64, pitch = (width + LANES - 1) / LANES * LANES;
    tokens_of_channels(k, a, group, first, width, room.k), tokens_of_channels(v, a, group, first, width, room.v);
    room.kv.resize(width * pitch), room.both.resize(pitch);
    int64_t *both = room.both.data();
    for (int64_t c = 0; c < width; c++) {
        std::fill(both, both + pitch, 0);
        for (int64_t w = 0; w < words; w++) {
            const uint64_t of_k = room.k[w * channels + c], *of_v = room.v.data() + w * channels;
            for (int64_t d = 0; of_k && d < pitch; d++) both[d] += __builtin_popcountll(of_k & of_v[d]);
        }
        for (int64_t d = 0; d < pitch; d++) room.kv[c * pitch + d] = float(both[d]) * a.inner;
    }
    for (int64_t n = 0; n < a.tokens; n++) {
        const int64_t pixel = a.group_pixels[group] + a.token_pixels[n];
        float *to = out.numbers + pixel * out.channels + first;
        for (int64_t d = 0; d < width; d += LANES) {
            Vector sum = {};
            for (int64_t c = 0; c < width; c += 64)
                for (uint64_t bits = bits_at(string_of(q, 0, pixel), first + c, std::min<int64_t>(64, width - c)); bits; bits &= bits - 1)
                    sum += load(room.kv.data() + (c + __builtin_ctzll(bits)) * pitch + d);
            sum *= a.outer;
            std::memcpy(to + d, &sum, std::min<int64_t>(LANES, width - d) * sizeof(float));
        }
    }
}

}  // namespace
