"""Triton kernels of batch norm and neuron as one: normalise, integrate, fire, without the normalised tensor.

    grid = (triton.cdiv(B * C, 4), triton.cdiv(H * W, 64))     # a tile of 4 x 64 per program; x, spikes [T, B, C, H, W]
    norm_fire_forward[grid](x=x, spikes=spikes, marks=x, weight=weight, bias=bias, mean=mean, var=var, eps=1e-5,
                            decay=0.5, T=T, C=C, W=H * W, n=B * C * H * W, threshold=1.0, reset=0.0, MARK=False,
                            CHARGE="decay", LEARNED=False, SOFT=False, STRICT=False, LAST=False, STATIC=False, STEPS=T,
                            EVEN=True, ALIGNED=False, EXACT=False, ROWS=4, COLUMNS=64)

Definition: st_utils/kernels/norm_node/definition.py. Launched by `cuda.py`, whose `Tiles` chooses grid and constants.

Forward, per channel, with N = T B H W numbers of a channel:

    z_t = (x_t - mean) / sqrt(var + eps),   y_t = weight z_t + bias,   s_t from y_t as in ../node/triton_kernels.py

Backward, from dL/dy_t, which the neuron's backward pass gives:

    dL/d bias = sum of dL/dy_t,   dL/d weight = sum of dL/dy_t z_t      over t and the channel's elements
    dL/dx_t = weight / sqrt(var + eps) (dL/dy_t - dL/d bias / N - z_t dL/d weight / N)

without the last two terms where mean and var are constants (evaluation). With the batch's statistics each dL/dx_t needs
both sums over all elements first: two launches, REDUCE and then WRITE, each of which recomputes dL/dy_t from x.

A time step of x and of the result is a matrix of rows of W elements: [B C, H W], or with LAST, channels last in memory,
[B H W, C]. A program has a tile of ROWS x COLUMNS elements through all T steps. A channel is a row of the tile, with
LAST a column. Each tile's sums go to a place of their own, and torch adds them up: without atomics, every run gives the
same bits.

Sizes are run-time numbers: T; C; W; n, elements per step; R, rows. Constants beside those of ../node/triton_kernels.py:

    EXACT     COLUMNS divides W: no mask along a row
    STATIC    x is [1, n], one step that stands for all T: no copies of it are in memory
    MARK      write v at the end of each segment instead of spikes, for the backward pass of T > STEPS steps
"""

import triton
import triton.language as tl

from st_utils.kernels.node.triton_kernels import after, charge, fire, grad_of_h, grad_of_v, lanes_in_row, load_steps


@triton.jit
def tile(W, n, ROWS: tl.constexpr, COLUMNS: tl.constexpr, EXACT: tl.constexpr):
    """This program's rows [ROWS], columns [COLUMNS] and lanes [ROWS, COLUMNS]; a lane of n or more is outside."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    lanes = row[:, None] * W + column[None, :]
    if not EXACT:
        lanes = tl.where(column[None, :] < W, lanes, n)
    return row, column, lanes


@triton.jit
def channels(row, column, C, LAST: tl.constexpr, EXACT: tl.constexpr):
    """The channel of each row [ROWS], with LAST of each column [COLUMNS]; outside, any channel there is."""
    if LAST:
        return column if EXACT else tl.minimum(column, C - 1)
    else:  # noqa: RET505
        return row % C


@triton.jit
def spread(values, LAST: tl.constexpr):
    """One number per channel, [ROWS] or with LAST [COLUMNS], shaped to broadcast over the tile."""
    if LAST:
        return values[None, :]
    else:  # noqa: RET505
        return values[:, None]


@triton.jit
def sum_per_channel(values, LAST: tl.constexpr):
    """The sum of each channel's numbers in the tile, [ROWS] or with LAST [COLUMNS]."""
    if LAST:
        return tl.sum(values, axis=0)
    else:  # noqa: RET505
        return tl.sum(values, axis=1)


@triton.jit
def place(row, column, W, n, LAST: tl.constexpr):
    """The index where each channel's sum over this tile is stored, and whether the channel is inside."""
    if LAST:
        return tl.program_id(0).to(tl.int64) * W + column, column < W
    else:  # noqa: RET505
        return row * tl.num_programs(1) + tl.program_id(1), row * W < n


@triton.jit
def affine(channel, weight, bias, mean, var, eps):
    """mean, 1 / sqrt(var + eps), weight / sqrt(var + eps) and bias of the tile's channels."""
    deviation = 1.0 / tl.sqrt(tl.load(var + channel) + eps)
    return tl.load(mean + channel), deviation, tl.load(weight + channel) * deviation, tl.load(bias + channel)


@triton.jit(do_not_specialize=["T", "W", "n"])
def moments(
    x, means, squares, T: tl.int32, W: tl.int32, n: tl.int64,
    LAST: tl.constexpr, STATIC: tl.constexpr, STEPS: tl.constexpr, EVEN: tl.constexpr, ALIGNED: tl.constexpr,
    EXACT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Each tile's mean and sum of squared deviations of each channel, over all T -> means, squares [places].

    The deviations are summed about the tile's mean at t = 0: about 0, a large mean would cost the variance its digits.
    """
    n = n.to(tl.int64)
    if ALIGNED:  # shows the compiler that 16 divides both
        n = n // 16 * 16
        W = W // 16 * 16
    row, column, lanes = tile(W, n, ROWS=ROWS, COLUMNS=COLUMNS, EXACT=EXACT)
    if LAST:
        count = tl.minimum(n // W - tl.program_id(0).to(tl.int64) * ROWS, ROWS).to(tl.float32)
    else:
        count = tl.minimum(W - tl.program_id(1) * COLUMNS, COLUMNS).to(tl.float32)
    shift = sum_per_channel(tl.load(x + lanes, mask=lanes < n, other=0.0).to(tl.float32), LAST) / count
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    square = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, T, STEPS):
        rows = load_steps(x, start, T=T, n=n, lanes=lanes, STATIC=STATIC, STEPS=STEPS, EVEN=EVEN)
        for k in tl.static_range(STEPS):
            inside = lanes < lanes_in_row(start + k, T=T, n=n, EVEN=EVEN)
            z = tl.where(inside, rows[k] - spread(shift, LAST), 0.0)
            total += z
            square += z * z
    mean = sum_per_channel(total, LAST) / (count * T)
    to, there = place(row, column, W=W, n=n, LAST=LAST)
    tl.store(means + to, mean + shift, mask=there)
    tl.store(squares + to, sum_per_channel(square, LAST) - mean * mean * count * T, mask=there)


@triton.jit
def number_of_tile(values, i, channel, count, parts, C, LAST: tl.constexpr):
    """The channel's number of its i-th tile, as float64; 0 for i >= count."""
    step = 1 if LAST else parts
    to = ((i // step).to(tl.int64) * C + channel) * step + i % step
    return tl.load(values + to, mask=i < count, other=0.0).to(tl.float64)


@triton.jit
def positions_in_tile(i, W, R, parts, LAST: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """How many elements per step the channel's i-th tile has."""
    if LAST:
        return tl.minimum(R - i * ROWS, ROWS)
    else:  # noqa: RET505
        return tl.minimum(W - i % parts * COLUMNS, COLUMNS)


@triton.jit(do_not_specialize=["T", "C", "W", "R"])
def combine(
    means, squares, mean, var, T: tl.int32, C: tl.int32, W: tl.int32, R: tl.int32,
    LAST: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """All tiles' moments -> mean and population variance [C]. Grid: (C,), one program per channel, in float64.

    With m the mean of the tiles' means m_i, weighted by their N_i elements: N var = sum of squares_i + N_i (m_i - m)^2.
    """
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
        width = positions_in_tile(i, W, R, parts, LAST=LAST, ROWS=ROWS, COLUMNS=COLUMNS)
        total += number_of_tile(means, i, channel, count, parts, C, LAST=LAST) * width
    middle = tl.sum(total, axis=0) / positions
    total = tl.zeros([BLOCK], tl.float64)
    for first in range(0, count, BLOCK):
        i = first + tl.arange(0, BLOCK)
        off = number_of_tile(means, i, channel, count, parts, C, LAST=LAST) - middle
        about = number_of_tile(squares, i, channel, count, parts, C, LAST=LAST)
        width = positions_in_tile(i, W, R, parts, LAST=LAST, ROWS=ROWS, COLUMNS=COLUMNS)
        total += tl.where(i < count, about + off * off * width * T, 0.0)
    tl.store(mean + channel, middle.to(tl.float32))
    tl.store(var + channel, (tl.sum(total, axis=0) / (positions * T)).to(tl.float32))


@triton.jit(do_not_specialize=["T", "C", "W", "n"])
def norm_fire_forward(
    x, spikes, marks, weight, bias, mean, var, eps: tl.float32, decay,
    T: tl.int32, C: tl.int32, W: tl.int32, n: tl.int64, threshold: tl.float32, reset: tl.float32,
    MARK: tl.constexpr, CHARGE: tl.constexpr, LEARNED: tl.constexpr, SOFT: tl.constexpr, STRICT: tl.constexpr,
    LAST: tl.constexpr, STATIC: tl.constexpr, STEPS: tl.constexpr, EVEN: tl.constexpr, ALIGNED: tl.constexpr,
    EXACT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """x [T, n] -> spikes [T, n]; with MARK, v at the end of every segment but the last -> marks [segments - 1, n]."""
    n = n.to(tl.int64)
    if ALIGNED:  # shows the compiler that 16 divides both
        n = n // 16 * 16
        W = W // 16 * 16
    row, column, lanes = tile(W, n, ROWS=ROWS, COLUMNS=COLUMNS, EXACT=EXACT)
    channel = spread(channels(row, column, C, LAST=LAST, EXACT=EXACT), LAST=LAST)
    m, _, scale, b = affine(channel, weight, bias, mean, var, eps)
    d = tl.load(decay) if LEARNED else decay
    v = tl.zeros([ROWS, COLUMNS], tl.float32) + reset
    for start in range(0, T - STEPS if MARK else T, STEPS):
        rows = load_steps(x, start, T=T, n=n, lanes=lanes, STATIC=STATIC, STEPS=STEPS, EVEN=EVEN)
        for k in tl.static_range(STEPS):
            h = charge(v, (rows[k] - m) * scale + b, d, reset, CHARGE=CHARGE)
            s = fire(h, threshold, STRICT=STRICT)
            if not MARK:
                inside = lanes < lanes_in_row(start + k, T=T, n=n, EVEN=EVEN)
                tl.store(spikes + (start + k) * n + lanes, s.to(spikes.dtype.element_ty), mask=inside)
            v = after(h, s, threshold, reset, SOFT=SOFT)
        if MARK:
            tl.store(marks + (start // STEPS) * n + lanes, v, mask=lanes < n)


@triton.jit(do_not_specialize=["T", "C", "W", "n", "count"])
def norm_fire_backward(
    grad, x, grad_x, marks, sums, products, decays, total_dy, total_dyz, weight, bias, mean, var, eps: tl.float32,
    decay, T: tl.int32, C: tl.int32, W: tl.int32, n: tl.int64,
    threshold: tl.float32, reset: tl.float32, alpha: tl.float32, beta: tl.float32, count: tl.float32,
    REDUCE: tl.constexpr, WRITE: tl.constexpr, CHARGE: tl.constexpr, LEARNED: tl.constexpr, SOFT: tl.constexpr,
    DETACH: tl.constexpr, STRICT: tl.constexpr, SURROGATE: tl.constexpr, SEGMENTED: tl.constexpr,
    LAST: tl.constexpr, STATIC: tl.constexpr, STEPS: tl.constexpr, EVEN: tl.constexpr, ALIGNED: tl.constexpr,
    EXACT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """grad = dL/ds [T, n] and x [T, n] -> what the two flags say; both at once are for constant statistics.

    REDUCE: each tile's sums of dL/dy and of dL/dy z per channel -> sums, products [places]; with LEARNED, each
    program's share of dL/dd -> decays [programs].
    WRITE: dL/dx -> grad_x, [1, n] with STATIC; without REDUCE, from the channels' total_dy and total_dyz [C] over their
    `count` = N numbers.
    """
    n = n.to(tl.int64)
    if ALIGNED:  # shows the compiler that 16 divides both
        n = n // 16 * 16
        W = W // 16 * 16
    row, column, lanes = tile(W, n, ROWS=ROWS, COLUMNS=COLUMNS, EXACT=EXACT)
    channel = spread(channels(row, column, C, LAST=LAST, EXACT=EXACT), LAST=LAST)
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
        rows = load_steps(x, start, T=T, n=n, lanes=lanes, STATIC=STATIC, STEPS=STEPS, EVEN=EVEN)
        grads = load_steps(grad, start, T=T, n=n, lanes=lanes, STATIC=False, STEPS=STEPS, EVEN=EVEN)
        hs = ()
        slopes = ()  # dh_t / dd
        for k in tl.static_range(STEPS):
            y = (rows[k] - m) * scale + b
            h = charge(v, y, d, reset, CHARGE=CHARGE)
            if LEARNED and REDUCE:
                slopes += ((y - (v - reset)) if CHARGE == "decay" else -(v - reset),)
            hs += (h,)
            v = after(h, fire(h, threshold, STRICT=STRICT), threshold, reset, SOFT=SOFT)
        for k in tl.static_range(STEPS):
            t = start + STEPS - 1 - k
            inside = lanes < lanes_in_row(t, T=T, n=n, EVEN=EVEN)
            dh = grad_of_h(
                grads[STEPS - 1 - k], hs[STEPS - 1 - k], dv, t + 1 == T, threshold, reset, alpha, beta,
                SOFT=SOFT, DETACH=DETACH, STRICT=STRICT, SURROGATE=SURROGATE,
            )  # fmt: skip
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
            dv = grad_of_v(dh, d, CHARGE=CHARGE, DETACH=DETACH)
    if WRITE and STATIC:
        tl.store(grad_x + lanes, dx_sum.to(grad_x.dtype.element_ty), mask=lanes < n)
    if REDUCE:
        to, there = place(row, column, W=W, n=n, LAST=LAST)
        tl.store(sums + to, sum_per_channel(dy_sum, LAST=LAST), mask=there)
        tl.store(products + to, sum_per_channel(dyz_sum, LAST), mask=there)
        if LEARNED:
            share = tl.sum(tl.sum(decay_sum, axis=1), axis=0)
            tl.store(decays + tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1), share)
