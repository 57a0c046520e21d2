// The sizes of a convolution, and its output channels in strips.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "products.h"

// x [images, height, width, in] -> [images, out_height, out_width, out], all channels last without gaps.
extern "C" struct Shape {
    int64_t images, height, width, in, out, rows, columns;  // rows and columns of the kernel
    int64_t stride[2], padding[2], dilation[2], groups, out_height, out_width;
};

namespace {

// Strings are put together from all taps where a pixel has so few channels that a string per tap would be mostly empty.
inline bool gathered(const Shape &s) { return s.groups == 1 && s.in < UNIT && s.rows * s.columns > 1; }

// What a string has: the channels of an input pixel (and group), to be read once per tap; or those of all taps.
struct Layout {
    int64_t taps, bits, units, chunks, pitch;  // bits of a string, in units and chunks; units from string to string
    Layout(const Shape &s, bool all_taps) {
        const int64_t kernel = s.rows * s.columns, in = s.in / s.groups;
        taps = all_taps ? 1 : kernel, bits = all_taps ? kernel * in : in;
        units = (bits + UNIT - 1) / UNIT, chunks = (bits + BITS - 1) / BITS, pitch = (units + 3) / 4 * 4;
    }
};

// Output channels that are summed together, at most WIDEST * ROW, all of one group.
struct Strip {
    int64_t group, channel, channels, width, rows;  // width in ROWs; rows: where its weights begin, in ROWs
};

// All output channels, in strips as equal as possible. Each strip has `rows` rows of weights.
inline std::vector<Strip> strips_of(const Shape &s, int64_t rows) {
    const int64_t out = s.out / s.groups, all = (out + ROW - 1) / ROW, count = (all + WIDEST - 1) / WIDEST;
    std::vector<Strip> strips;
    int64_t at = 0;
    for (int64_t group = 0; group < s.groups; group++)
        for (int64_t i = 0; i < count; i++) {
            const int64_t from = all * i / count, to = all * (i + 1) / count;
            strips.push_back({group, group * out + from * ROW, std::min(out, to * ROW) - from * ROW, to - from, at});
            at += (to - from) * rows;
        }
    return strips;
}

// The outputs [first, last) of a row or column for which this tap reads within the input.
struct Range {
    int64_t first, last, start;  // start: the input of the first
    Range(int64_t in, int64_t out, int64_t tap, int64_t stride, int64_t padding, int64_t dilation) {
        const int64_t shift = tap * dilation - padding;  // input = output * stride + shift
        first = shift < 0 ? (-shift + stride - 1) / stride : 0;
        last = in <= shift ? 0 : std::min(out, (in - 1 - shift) / stride + 1);
        start = first * stride + shift;
    }
};

}  // namespace
