"""Triton kernels of batch norm and neuron as one: normalise, integrate, fire, without the normalised tensor.

`cuda_norm_node.py` imports this module when a kernel is first launched. A time step of input and output is a matrix
of rows of W elements: [B C, P], P the positions of a plane, or with LAST [B P, C], channels last in memory. A program
owns a tile of ROWS by COLUMNS, over all T. A channel's numbers in it are those of a row (with LAST: of a column); its
sums over them and over t go to one place a tile, and are added up by torch: no atomics, the same bits at every run.

Run-time numbers: n elements of a step, C, T, W. Constexprs beside those of `triton_neuron.py`: EXACT: COLUMNS divides
W; STATIC: x has one step, which stands for all.
"""

import triton
import triton.language as tl

from st_utils.kernels.node.triton_kernels import after, before, charge, fire, gradient, load_steps, within


@triton.jit
def tile(n, W, ROWS: tl.constexpr, COLUMNS: tl.constexpr, EXACT: tl.constexpr):
    """This program's rows [ROWS], columns [COLUMNS] and elements of a time step; n and more are outside."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    lanes = row[:, None] * W + column[None, :]
    if not EXACT:
        lanes = tl.where(column[None, :] < W, lanes, n)
    return row, column, lanes


@triton.jit
def channels(row, column, C, LAST: tl.constexpr, EXACT: tl.constexpr):
    """Each row's channel [ROWS], or each column's [COLUMNS]; any where it is outside."""
    if LAST:
        return column if EXACT else tl.minimum(column, C - 1)
    else:  # noqa: RET505
        return row % C


@triton.jit
def spread(values, LAST: tl.constexpr):
    """A number a channel, [ROWS] or [COLUMNS], against the tile."""
    if LAST:
        return values[None, :]
    else:  # noqa: RET505
        return values[:, None]


@triton.jit
def gather(values, LAST: tl.constexpr):
    """The sum of each channel's numbers in the tile, [ROWS] or [COLUMNS]."""
    if LAST:
        return tl.sum(values, axis=0)
    else:  # noqa: RET505
        return tl.sum(values, axis=1)


@triton.jit
def place(row, column, n, W, LAST: tl.constexpr):
    """Where each channel's sum over the tile goes, and whether it does."""
    if LAST:
        return tl.program_id(0).to(tl.int64) * W + column, column < W
    else:  # noqa: RET505
        return row * tl.num_programs(1) + tl.program_id(1), row * W < n


@triton.jit
def affine(channel, weight, bias, mean, var, eps):
    """mean, 1 / standard deviation, scale and bias of the tile's channels."""
    deviation = 1.0 / tl.sqrt(tl.load(var + channel) + eps)
    return tl.load(mean + channel), deviation, tl.load(weight + channel) * deviation, tl.load(bias + channel)


@triton.jit(do_not_specialize=["n", "T", "W"])
def moments(
    x, means, squares, n: tl.int64, T: tl.int32, W: tl.int32,
    LAST: tl.constexpr, STATIC: tl.constexpr, STEPS: tl.constexpr, EVEN: tl.constexpr, ALIGNED: tl.constexpr,
    EXACT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Mean and sum of squared deviations of each channel's part in each tile, over all T.

    Deviations are taken from the part's mean at t = 0, so that a large mean costs no digits.
    """
    n = n.to(tl.int64)
    if ALIGNED:
        n = n // 16 * 16
        W = W // 16 * 16
    row, column, lanes = tile(n, W, ROWS, COLUMNS, EXACT)
    if LAST:
        count = tl.minimum(n // W - tl.program_id(0).to(tl.int64) * ROWS, ROWS).to(tl.float32)
    else:
        count = tl.minimum(W - tl.program_id(1) * COLUMNS, COLUMNS).to(tl.float32)
    shift = gather(tl.load(x + lanes, mask=lanes < n, other=0.0).to(tl.float32), LAST) / count
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    square = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, T, STEPS):
        rows = load_steps(x, start, T, n, lanes, STATIC, STEPS, EVEN)
        for k in tl.static_range(STEPS):
            inside = lanes < within(start + k, T, n, EVEN)
            z = tl.where(inside, rows[k] - spread(shift, LAST), 0.0)
            total += z
            square += z * z
    mean = gather(total, LAST) / (count * T)
    to, there = place(row, column, n, W, LAST)
    tl.store(means + to, mean + shift, mask=there)
    tl.store(squares + to, gather(square, LAST) - mean * mean * count * T, mask=there)


@triton.jit
def part(values, i, channel, count, parts, C, LAST: tl.constexpr):
    """The i-th tile's number of a channel, in double; 0 past the last."""
    step = 1 if LAST else parts
    to = ((i // step).to(tl.int64) * C + channel) * step + i % step
    return tl.load(values + to, mask=i < count, other=0.0).to(tl.float64)


@triton.jit
def width(i, R, W, parts, LAST: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """How many positions the i-th tile has of a channel."""
    if LAST:
        return tl.minimum(R - i * ROWS, ROWS)
    else:  # noqa: RET505
        return tl.minimum(W - i % parts * COLUMNS, COLUMNS)


@triton.jit(do_not_specialize=["R", "C", "T", "W"])
def combine(
    means, squares, mean, var, R: tl.int32, C: tl.int32, T: tl.int32, W: tl.int32,
    LAST: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The tiles' moments of R rows -> mean and variance (biased) of a channel; one program a channel, in double."""
    channel = tl.program_id(0)
    parts = tl.cdiv(W, COLUMNS)
    if LAST:
        count = tl.cdiv(R, ROWS)
        positions = tl.cast(R, tl.float64)
    else:
        count = R // C * parts
        positions = tl.cast(R // C, tl.float64) * W
    total = tl.zeros([BLOCK], tl.float64)
    for first in range(0, count, BLOCK):
        i = first + tl.arange(0, BLOCK)
        total += part(means, i, channel, count, parts, C, LAST) * width(i, R, W, parts, LAST, ROWS, COLUMNS)
    middle = tl.sum(total, axis=0) / positions
    total = tl.zeros([BLOCK], tl.float64)
    for first in range(0, count, BLOCK):
        i = first + tl.arange(0, BLOCK)
        off = part(means, i, channel, count, parts, C, LAST) - middle
        about = part(squares, i, channel, count, parts, C, LAST)
        total += tl.where(i < count, about + off * off * width(i, R, W, parts, LAST, ROWS, COLUMNS) * T, 0.0)
    tl.store(mean + channel, middle.to(tl.float32))
    tl.store(var + channel, (tl.sum(total, axis=0) / (positions * T)).to(tl.float32))


@triton.jit(do_not_specialize=["n", "C", "T", "W"])
def norm_fire_forward(
    x, spikes, marks, weight, bias, mean, var, eps: tl.float32, decay,
    n: tl.int64, C: tl.int32, T: tl.int32, W: tl.int32, threshold: tl.float32, reset: tl.float32,
    MARK: tl.constexpr, CHARGE: tl.constexpr, LEARNED: tl.constexpr, SOFT: tl.constexpr, STRICT: tl.constexpr,
    LAST: tl.constexpr, STATIC: tl.constexpr, STEPS: tl.constexpr, EVEN: tl.constexpr, ALIGNED: tl.constexpr,
    EXACT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """x [T, n] -> spikes [T, n]; with MARK no spikes but v at every segment's end but the last, marks [.., n]."""
    n = n.to(tl.int64)
    if ALIGNED:
        n = n // 16 * 16
        W = W // 16 * 16
    row, column, lanes = tile(n, W, ROWS, COLUMNS, EXACT)
    channel = spread(channels(row, column, C, LAST, EXACT), LAST)
    m, _, scale, b = affine(channel, weight, bias, mean, var, eps)
    d = tl.load(decay) if LEARNED else decay
    v = tl.zeros([ROWS, COLUMNS], tl.float32) + reset
    for start in range(0, T - STEPS if MARK else T, STEPS):
        rows = load_steps(x, start, T, n, lanes, STATIC, STEPS, EVEN)
        for k in tl.static_range(STEPS):
            h = charge(v, (rows[k] - m) * scale + b, d, reset, CHARGE)
            s = fire(h, threshold, STRICT)
            if not MARK:
                inside = lanes < within(start + k, T, n, EVEN)
                tl.store(spikes + (start + k) * n + lanes, s.to(spikes.dtype.element_ty), mask=inside)
            v = after(h, s, threshold, reset, SOFT)
        if MARK:
            tl.store(marks + (start // STEPS) * n + lanes, v, mask=lanes < n)


@triton.jit(do_not_specialize=["n", "C", "T", "W", "count"])
def norm_fire_backward(
    grad, x, grad_x, marks, sums, products, decays, total_dy, total_dyz, weight, bias, mean, var, eps: tl.float32,
    decay, n: tl.int64, C: tl.int32, T: tl.int32, W: tl.int32,
    threshold: tl.float32, reset: tl.float32, alpha: tl.float32, beta: tl.float32, count: tl.float32,
    REDUCE: tl.constexpr, WRITE: tl.constexpr, CHARGE: tl.constexpr, LEARNED: tl.constexpr, SOFT: tl.constexpr,
    DETACH: tl.constexpr, STRICT: tl.constexpr, SURROGATE: tl.constexpr, SEGMENTED: tl.constexpr,
    LAST: tl.constexpr, STATIC: tl.constexpr, STEPS: tl.constexpr, EVEN: tl.constexpr, ALIGNED: tl.constexpr,
    EXACT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """From grad and x [T, n], with y the normalised input and z = (x - mean) invstd:

    REDUCE: sums of dL/dy and dL/dy z of each channel in each tile, and a program's share of dL/d decay; WRITE:
    dL/dx = scale (dL/dy - total_dy / count - z total_dyz / count), of which the two totals are a channel's sums over
    its `count` numbers. The norm's way back needs the sums of all: two passes. Both at once is the way back through
    constant statistics, without the totals.
    """
    n = n.to(tl.int64)
    if ALIGNED:
        n = n // 16 * 16
        W = W // 16 * 16
    row, column, lanes = tile(n, W, ROWS, COLUMNS, EXACT)
    channel = spread(channels(row, column, C, LAST, EXACT), LAST)
    m, deviation, scale, b = affine(channel, weight, bias, mean, var, eps)
    d = tl.load(decay) if LEARNED else decay
    dx_sum = tl.zeros([ROWS, COLUMNS], tl.float32)
    if not REDUCE:
        dy_mean = tl.load(total_dy + channel) / count
        dyz_mean = tl.load(total_dyz + channel) / count
    dv = tl.zeros([ROWS, COLUMNS], tl.float32)
    dy_sum = tl.zeros([ROWS, COLUMNS], tl.float32)
    dyz_sum = tl.zeros([ROWS, COLUMNS], tl.float32)
    decay_sum = tl.zeros([ROWS, COLUMNS], tl.float32)
    segments = (T + STEPS - 1) // STEPS if SEGMENTED else 1
    for i in range(0, segments):
        start = (segments - 1 - i) * STEPS
        v = tl.zeros([ROWS, COLUMNS], tl.float32) + reset
        if SEGMENTED:
            marked = lanes < tl.where(start > 0, n, 0)
            v = tl.load(marks + (segments - 2 - i) * n + lanes, mask=marked, other=reset)
        rows = load_steps(x, start, T, n, lanes, STATIC, STEPS, EVEN)
        grads = load_steps(grad, start, T, n, lanes, False, STEPS, EVEN)
        hs = ()
        slopes = ()
        for k in tl.static_range(STEPS):
            y = (rows[k] - m) * scale + b
            h = charge(v, y, d, reset, CHARGE)
            if LEARNED and REDUCE:
                slopes += ((y - (v - reset)) if CHARGE == "decay" else -(v - reset),)
            hs += (h,)
            v = after(h, fire(h, threshold, STRICT), threshold, reset, SOFT)
        for k in tl.static_range(STEPS):
            t = start + STEPS - 1 - k
            g, h = grads[STEPS - 1 - k], hs[STEPS - 1 - k]
            inside = lanes < within(t, T, n, EVEN)
            dh = gradient(g, h, dv, t + 1 == T, threshold, reset, alpha, beta, SOFT, DETACH, STRICT, SURROGATE)
            dh = tl.where(inside, dh, 0.0)
            dy = dh * d if CHARGE == "decay" else dh
            z = (rows[STEPS - 1 - k] - m) * deviation
            if REDUCE:
                dy_sum += dy
                dyz_sum += dy * z
                if LEARNED:
                    decay_sum += dh * slopes[STEPS - 1 - k]
            if WRITE:
                dx = scale * dy if REDUCE else scale * (dy - dy_mean - z * dyz_mean)
                if STATIC:
                    dx_sum += tl.where(inside, dx, 0.0)
                else:
                    tl.store(grad_x + t * n + lanes, dx.to(grad_x.dtype.element_ty), mask=inside)
            dv = before(dh, d, CHARGE, DETACH)
    if WRITE and STATIC:
        tl.store(grad_x + lanes, dx_sum.to(grad_x.dtype.element_ty), mask=lanes < n)
    if REDUCE:
        to, there = place(row, column, n, W, LAST)
        tl.store(sums + to, gather(dy_sum, LAST), mask=there)
        tl.store(products + to, gather(dyz_sum, LAST), mask=there)
        if LEARNED:
            share = tl.sum(tl.sum(decay_sum, axis=1), axis=0)
            tl.store(decays + tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1), share)
