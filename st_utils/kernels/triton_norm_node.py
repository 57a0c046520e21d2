"""Triton kernels of batch norm and neuron as one: normalise, integrate, fire, without the normalised tensor.

`cuda_norm_node.py` imports this module when a kernel is first launched. Input and output are [T, B, C, P], P the
positions of a plane. A program owns ROWS planes (a plane is one sample's channel) by COLUMNS positions, over all
T: a plane's channel, and so its norm, is one number a row. Its sums over t and p go to one place a plane and
column of programs, and are added up by torch: no atomics, the same bits at every run.

Run-time numbers: n = B C P, C, P, T. Constexprs beside those of `triton_neuron.py`: EXACT: COLUMNS divides P.
"""

import triton
import triton.language as tl

from st_utils.kernels.triton_neuron import after, charge, fire, gradient, load_steps, within


@triton.jit
def tile(n, P, ROWS: tl.constexpr, COLUMNS: tl.constexpr, EXACT: tl.constexpr):
    """The planes [ROWS] and elements of a time step [ROWS, COLUMNS] of this program; n and more are outside."""
    plane = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    lanes = plane[:, None] * P + column[None, :]
    if not EXACT:
        lanes = tl.where(column[None, :] < P, lanes, n)
    return plane, lanes


@triton.jit
def affine(plane, C, mean, invstd, weight, bias):
    """mean, 1 / standard deviation, scale and bias of the planes' channels, [ROWS, 1] each."""
    channel = (plane % C)[:, None]
    deviation = tl.load(invstd + channel)
    return tl.load(mean + channel), deviation, tl.load(weight + channel) * deviation, tl.load(bias + channel)


@triton.jit(do_not_specialize=["n", "T", "P"])
def moments(
    x, means, squares, n: tl.int64, T: tl.int32, P: tl.int32,
    STEPS: tl.constexpr, EVEN: tl.constexpr, ALIGNED: tl.constexpr, EXACT: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Mean and sum of squared deviations of each plane's part over all T, [planes, programs along P] each.

    Deviations are taken from the part's mean at t = 0, so that a large mean costs no digits.
    """
    n = n.to(tl.int64)
    if ALIGNED:
        n = n // 16 * 16
        P = P // 16 * 16
    plane, lanes = tile(n, P, ROWS, COLUMNS, EXACT)
    columns = tl.minimum(P - tl.program_id(1) * COLUMNS, COLUMNS).to(tl.float32)
    shift = tl.sum(tl.load(x + lanes, mask=lanes < n, other=0.0).to(tl.float32), axis=1) / columns
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    square = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, T, STEPS):
        rows = load_steps(x, start, T, n, lanes, STEPS, EVEN)
        for k in tl.static_range(STEPS):
            inside = lanes < within(start + k, T, n, EVEN)
            z = tl.where(inside, rows[k] - shift[:, None], 0.0)
            total += z
            square += z * z
    mean = tl.sum(total, axis=1) / (columns * T)
    place = plane * tl.num_programs(1) + tl.program_id(1)
    tl.store(means + place, mean + shift, mask=plane * P < n)
    tl.store(squares + place, tl.sum(square, axis=1) - mean * mean * columns * T, mask=plane * P < n)


@triton.jit(do_not_specialize=["B", "C", "T", "P"])
def combine(
    means, squares, mean, var, B: tl.int32, C: tl.int32, T: tl.int32, P: tl.int32,
    COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The planes' moments -> mean and variance (biased) of a channel; one program a channel, in double."""
    channel = tl.program_id(0)
    parts = tl.cdiv(P, COLUMNS)
    count = tl.cast(B, tl.float64) * P
    total = tl.zeros([BLOCK], tl.float64)
    for first in range(0, B * parts, BLOCK):
        i = first + tl.arange(0, BLOCK)
        width = tl.minimum(P - i % parts * COLUMNS, COLUMNS)
        place = ((i // parts).to(tl.int64) * C + channel) * parts + i % parts
        total += tl.load(means + place, mask=i < B * parts, other=0.0).to(tl.float64) * width
    middle = tl.sum(total, axis=0) / count
    total = tl.zeros([BLOCK], tl.float64)
    for first in range(0, B * parts, BLOCK):
        i = first + tl.arange(0, BLOCK)
        width = tl.minimum(P - i % parts * COLUMNS, COLUMNS)
        place = ((i // parts).to(tl.int64) * C + channel) * parts + i % parts
        off = tl.load(means + place, mask=i < B * parts, other=0.0).to(tl.float64) - middle
        within_part = tl.load(squares + place, mask=i < B * parts, other=0.0).to(tl.float64)
        total += tl.where(i < B * parts, within_part + off * off * width * T, 0.0)
    tl.store(mean + channel, middle.to(tl.float32))
    tl.store(var + channel, (tl.sum(total, axis=0) / (count * T)).to(tl.float32))


@triton.jit(do_not_specialize=["n", "C", "T", "P"])
def norm_fire_forward(
    x, spikes, marks, mean, invstd, weight, bias, decay, n: tl.int64, C: tl.int32, T: tl.int32, P: tl.int32,
    threshold: tl.float32, reset: tl.float32,
    MARK: tl.constexpr, CHARGE: tl.constexpr, LEARNT: tl.constexpr, SOFT: tl.constexpr, STRICT: tl.constexpr,
    STEPS: tl.constexpr, EVEN: tl.constexpr, ALIGNED: tl.constexpr, EXACT: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """x [T, n] -> spikes [T, n]; with MARK no spikes but v at every segment's end but the last, marks [.., n]."""
    n = n.to(tl.int64)
    if ALIGNED:
        n = n // 16 * 16
        P = P // 16 * 16
    plane, lanes = tile(n, P, ROWS, COLUMNS, EXACT)
    m, _, scale, b = affine(plane, C, mean, invstd, weight, bias)
    d = tl.load(decay) if LEARNT else decay
    v = tl.zeros([ROWS, COLUMNS], tl.float32) + reset
    for start in range(0, T - STEPS if MARK else T, STEPS):
        rows = load_steps(x, start, T, n, lanes, STEPS, EVEN)
        for k in tl.static_range(STEPS):
            h = charge(v, (rows[k] - m) * scale + b, d, reset, CHARGE)
            s = fire(h, threshold, STRICT)
            if not MARK:
                inside = lanes < within(start + k, T, n, EVEN)
                tl.store(spikes + (start + k) * n + lanes, s.to(spikes.dtype.element_ty), mask=inside)
            v = after(h, s, threshold, reset, SOFT)
        if MARK:
            tl.store(marks + (start // STEPS) * n + lanes, v, mask=lanes < n)


@triton.jit(do_not_specialize=["n", "C", "T", "P"])
def norm_fire_backward(
    grad, x, grad_x, marks, sums, products, decays, mean, invstd, weight, bias, mean_dy, mean_dyx, decay,
    n: tl.int64, C: tl.int32, T: tl.int32, P: tl.int32,
    threshold: tl.float32, reset: tl.float32, alpha: tl.float32, beta: tl.float32,
    REDUCE: tl.constexpr, WRITE: tl.constexpr, CHARGE: tl.constexpr, LEARNT: tl.constexpr, SOFT: tl.constexpr,
    DETACH: tl.constexpr, STRICT: tl.constexpr, SURROGATE: tl.constexpr, SEGMENTED: tl.constexpr,
    STEPS: tl.constexpr, EVEN: tl.constexpr, ALIGNED: tl.constexpr, EXACT: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """From grad and x [T, n], with y the normalised input and z = (x - mean) invstd:

    REDUCE: sums of dL/dy and dL/dy z of each plane's part, [planes, programs along P], and a program's share of
    dL/d decay; WRITE: dL/dx = scale (dL/dy - mean_dy - z mean_dyx), of which the two means are a channel's
    (zeros where the norm's statistics are constants). The norm's way back needs the sums of all: two passes.
    """
    n = n.to(tl.int64)
    if ALIGNED:
        n = n // 16 * 16
        P = P // 16 * 16
    plane, lanes = tile(n, P, ROWS, COLUMNS, EXACT)
    m, deviation, scale, b = affine(plane, C, mean, invstd, weight, bias)
    d = tl.load(decay) if LEARNT else decay
    if WRITE:
        dy_mean = tl.load(mean_dy + plane % C)[:, None]
        dyx_mean = tl.load(mean_dyx + plane % C)[:, None]
    dv = tl.zeros([ROWS, COLUMNS], tl.float32)
    dy_sum = tl.zeros([ROWS, COLUMNS], tl.float32)
    dyx_sum = tl.zeros([ROWS, COLUMNS], tl.float32)
    decay_sum = tl.zeros([ROWS, COLUMNS], tl.float32)
    segments = (T + STEPS - 1) // STEPS if SEGMENTED else 1
    for i in range(0, segments):
        start = (segments - 1 - i) * STEPS
        v = tl.zeros([ROWS, COLUMNS], tl.float32) + reset
        if SEGMENTED:
            marked = lanes < tl.where(start > 0, n, 0)
            v = tl.load(marks + (segments - 2 - i) * n + lanes, mask=marked, other=reset)
        rows = load_steps(x, start, T, n, lanes, STEPS, EVEN)
        grads = load_steps(grad, start, T, n, lanes, STEPS, EVEN)
        hs = ()
        slopes = ()
        for k in tl.static_range(STEPS):
            y = (rows[k] - m) * scale + b
            h = charge(v, y, d, reset, CHARGE)
            if LEARNT and REDUCE:
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
                dyx_sum += dy * z
                if LEARNT:
                    decay_sum += dh * slopes[STEPS - 1 - k]
            if WRITE:
                dx = scale * (dy - dy_mean - z * dyx_mean)
                tl.store(grad_x + t * n + lanes, dx.to(grad_x.dtype.element_ty), mask=inside)
            dv = dh if CHARGE == "if" else dh - dh * d
    if REDUCE:
        place = plane * tl.num_programs(1) + tl.program_id(1)
        tl.store(sums + place, tl.sum(dy_sum, axis=1), mask=plane * P < n)
        tl.store(products + place, tl.sum(dyx_sum, axis=1), mask=plane * P < n)
        if LEARNT:
            share = tl.sum(tl.sum(decay_sum, axis=1), axis=0)
            tl.store(decays + tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1), share)
