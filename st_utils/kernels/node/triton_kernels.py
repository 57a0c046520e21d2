"""Triton kernels of the integrate-and-fire neurons: the whole time loop in one pass, forward and backward.

`cuda.py` imports this module when a kernel is first launched; nothing else does, so that no module of the
project needs Triton to load.

Every program owns BLOCK lanes (elements of [N...]) and walks over T in segments of STEPS unrolled steps. The
expressions and their order are those of `st_utils/node/base.py` and `lif.py`, and the launch forbids fused
multiply-adds, so that the spikes are the definition's bit for bit.

N and T are run-time numbers: a new batch size compiles nothing. Constexprs:
CHARGE "if" | "decay" | "plain"; LEARNED: `decay` points at a float32 instead of being one; SOFT: soft reset;
DETACH "nothing" | "reset" | "membrane": what carries no gradient; STRICT: fire above the threshold, not at it;
EVEN: STEPS divides T; ALIGNED: 16 divides N (the caller decides by the shape of a sample, not by the batch).
"""

import triton
import triton.language as tl


@triton.jit
def charge(v, x, decay, reset, CHARGE: tl.constexpr):
    """The membrane potential h before firing, from v after the last reset and the input current."""
    if CHARGE == "if":
        return v + x
    elif CHARGE == "decay":  # noqa: RET505 (Triton has no early return)
        return v + (x - (v - reset)) * decay
    else:
        return v - (v - reset) * decay + x


@triton.jit
def fire(h, threshold, STRICT: tl.constexpr):
    """0 or 1, float32."""
    u = h - threshold
    if STRICT:
        return (u > 0).to(tl.float32)
    else:  # noqa: RET505
        return (u >= 0).to(tl.float32)


@triton.jit
def after(h, s, threshold, reset, SOFT: tl.constexpr):
    """The membrane potential v after the reset."""
    if SOFT:
        return h - threshold * s
    else:  # noqa: RET505
        return (1.0 - s) * h + s * reset


@triton.jit
def logistic_slope(u, alpha):
    """alpha s (1 - s) with s = sigmoid(alpha u)."""
    e = tl.exp(-alpha * tl.abs(u))
    return alpha * e / ((1.0 + e) * (1.0 + e))


@triton.jit
def surrogate(u, alpha, beta, SURROGATE: tl.constexpr):
    """d spike / d u: one of `form.SHAPES` with its numbers."""
    far = tl.abs(u)
    if SURROGATE == "sigmoid":
        return logistic_slope(u, alpha)
    elif SURROGATE == "cauchy":  # noqa: RET505
        return alpha / (1.0 + (beta * u) * (beta * u))
    elif SURROGATE == "triangle":
        return tl.maximum(alpha - beta * far, 0.0, propagate_nan=tl.PropagateNan.ALL)
    elif SURROGATE == "box":
        return alpha * (far < beta).to(tl.float32)
    elif SURROGATE == "plateau":
        return tl.where(far < alpha, 0.5 / alpha, beta)
    elif SURROGATE == "exponential":
        return alpha * tl.exp(-beta * far)
    elif SURROGATE == "gaussian":
        return alpha * tl.exp(-(beta * u) * (beta * u))
    elif SURROGATE == "soft_sign":
        return alpha / ((1.0 + beta * far) * (1.0 + beta * far))
    elif SURROGATE == "hyperbola":
        return alpha / (beta + far)
    elif SURROGATE == "capped_hyperbola":
        return tl.minimum(1.0 / far, alpha, propagate_nan=tl.PropagateNan.ALL)
    elif SURROGATE == "power":
        return tl.exp(-alpha * tl.log(1.0 + beta * far))
    elif SURROGATE == "log_tail":
        return tl.where(u > 0, 1.0 / tl.maximum(u, 1.0, propagate_nan=tl.PropagateNan.ALL), alpha)
    elif SURROGATE == "above":
        return alpha * (u > 0).to(tl.float32)
    elif SURROGATE == "slopes":
        return tl.where(u >= 0, alpha, beta)
    elif SURROGATE == "s2nn":
        return tl.where(u < 0, logistic_slope(u, alpha), beta / (1.0 + u))
    else:
        tl.static_assert(SURROGATE == "fourier", "no surrogate of this shape")
        total = tl.zeros_like(u)
        for i in range(1, tl.cast(alpha, tl.int32)):
            total += tl.cos(tl.cast(2 * i - 1, tl.float32) * (beta * u))
        return beta * 0.636619772 * total  # 2 / pi


@triton.jit
def within(t, T, n, EVEN: tl.constexpr):
    """How many elements row t has: none from T on. One comparison with it masks a load and keeps it vectorised."""
    if EVEN:
        return n
    else:  # noqa: RET505
        return tl.where(t < T, n, 0)


@triton.jit
def load_steps(x, start, T, n, lanes, STATIC: tl.constexpr, STEPS: tl.constexpr, EVEN: tl.constexpr):
    """STEPS rows from `start` on, as float32, zeros past T: all loads are in flight before the first is used.

    STATIC: each is the only row of x.
    """
    rows = ()
    for k in tl.static_range(STEPS):
        inside = lanes < within(start + k, T, n, EVEN)
        row = x if STATIC else x + (start + k) * n
        rows += (tl.load(row + lanes, mask=inside, other=0.0).to(tl.float32),)
    return rows


@triton.jit(do_not_specialize=["n", "T"])
def fire_forward(
    x, spikes, decay, n: tl.int64, T: tl.int32, threshold: tl.float32, reset: tl.float32,
    CHARGE: tl.constexpr, LEARNED: tl.constexpr, SOFT: tl.constexpr, STRICT: tl.constexpr,
    STEPS: tl.constexpr, EVEN: tl.constexpr, ALIGNED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """x [T, n] -> spikes [T, n]; one program a block of lanes; nothing else is written."""
    n = n.to(tl.int64)
    if ALIGNED:  # said by arithmetic: a hint on an argument is lost
        n = n // 16 * 16
    d = tl.load(decay) if LEARNED else decay
    lanes = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    v = tl.zeros([BLOCK], tl.float32) + reset
    for start in range(0, T, STEPS):
        rows = load_steps(x, start, T, n, lanes, False, STEPS, EVEN)
        for k in tl.static_range(STEPS):
            h = charge(v, rows[k], d, reset, CHARGE)
            s = fire(h, threshold, STRICT)
            inside = lanes < within(start + k, T, n, EVEN)
            tl.store(spikes + (start + k) * n + lanes, s.to(spikes.dtype.element_ty), mask=inside)
            v = after(h, s, threshold, reset, SOFT)


@triton.jit
def checkpoint(
    x, scratch, d, T, n, lanes, v, threshold, reset,
    CHARGE: tl.constexpr, SOFT: tl.constexpr, STRICT: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the membrane potential at the end of every segment but the last: scratch [segments - 1, BLOCK]."""
    for start in range(0, T - STEPS, STEPS):
        rows = load_steps(x, start, T, n, lanes, False, STEPS, True)
        for k in tl.static_range(STEPS):
            h = charge(v, rows[k], d, reset, CHARGE)
            v = after(h, fire(h, threshold, STRICT), threshold, reset, SOFT)
        tl.store(scratch + (start // STEPS) * BLOCK + tl.arange(0, BLOCK), v)


@triton.jit
def gradient(
    grad, h, dv, last, threshold, reset, alpha, beta,
    SOFT: tl.constexpr, DETACH: tl.constexpr, STRICT: tl.constexpr, SURROGATE: tl.constexpr,
):  # fmt: skip
    """dL/dh of a step from dL/ds (`grad`) and dL/dv after its reset (`dv`)."""
    if SOFT:
        kept = dv
        by_reset = -threshold * dv
    else:
        kept = (1.0 - fire(h, threshold, STRICT)) * dv
        by_reset = (reset - h) * dv
    # The last step's reset is not used.
    through = grad + tl.where(last, 0.0, by_reset) if DETACH == "nothing" else grad
    return through * surrogate(h - threshold, alpha, beta, SURROGATE) + kept


@triton.jit
def before(dh, d, CHARGE: tl.constexpr, DETACH: tl.constexpr):
    """dL/dv before a step from dL/dh."""
    if DETACH == "membrane":
        return tl.zeros_like(dh)
    elif CHARGE == "if":  # noqa: RET505
        return dh
    else:
        return dh - dh * d


@triton.jit
def segment_backward(
    grad, x, grad_x, start, T, n, lanes, v, dv, total, d, threshold, reset, alpha, beta,
    CHARGE: tl.constexpr, LEARNED: tl.constexpr, SOFT: tl.constexpr, DETACH: tl.constexpr, STRICT: tl.constexpr,
    SURROGATE: tl.constexpr, STEPS: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """One segment, from v before it and dv after it, to dv before it and `total` with its share of dL/d decay."""
    rows = load_steps(x, start, T, n, lanes, False, STEPS, EVEN)
    grads = load_steps(grad, start, T, n, lanes, False, STEPS, EVEN)
    hs = ()
    slopes = ()  # dh / d decay
    for k in tl.static_range(STEPS):
        h = charge(v, rows[k], d, reset, CHARGE)
        if LEARNED:
            slopes += ((rows[k] - (v - reset)) if CHARGE == "decay" else -(v - reset),)
        hs += (h,)
        v = after(h, fire(h, threshold, STRICT), threshold, reset, SOFT)
    for k in tl.static_range(STEPS):
        t = start + STEPS - 1 - k
        g, h = grads[STEPS - 1 - k], hs[STEPS - 1 - k]
        dh = gradient(g, h, dv, t + 1 == T, threshold, reset, alpha, beta, SOFT, DETACH, STRICT, SURROGATE)
        if not EVEN:  # past T nothing flows back, not even a NaN
            dh = tl.where(t < T, dh, 0.0)
        if LEARNED:
            total += dh * slopes[STEPS - 1 - k]
        dx = dh * d if CHARGE == "decay" else dh
        inside = lanes < within(t, T, n, EVEN)
        tl.store(grad_x + t * n + lanes, dx.to(grad_x.dtype.element_ty), mask=inside)
        dv = before(dh, d, CHARGE, DETACH)
    return dv, total


@triton.jit(do_not_specialize=["n", "T"])
def fire_backward(
    grad, x, grad_x, grad_decay, scratch, decay, n: tl.int64, T: tl.int32, threshold: tl.float32, reset: tl.float32,
    alpha: tl.float32, beta: tl.float32,
    CHARGE: tl.constexpr, LEARNED: tl.constexpr, SOFT: tl.constexpr, DETACH: tl.constexpr, STRICT: tl.constexpr,
    SURROGATE: tl.constexpr, SEGMENTED: tl.constexpr,
    STEPS: tl.constexpr, EVEN: tl.constexpr, ALIGNED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """grad, x [T, n] -> grad_x [T, n], and a program's share of dL/d decay in grad_decay [programs].

    A program takes every programs-th block of lanes. The membrane potential is recomputed from x: within a
    segment it stays in registers; with SEGMENTED, a first sweep leaves it at the segments' ends in the
    program's own scratch [segments - 1, BLOCK].
    """
    n = n.to(tl.int64)
    if ALIGNED:  # said by arithmetic: a hint on an argument is lost
        n = n // 16 * 16
    d = tl.load(decay) if LEARNED else decay
    program = tl.program_id(0).to(tl.int64)
    segments = (T + STEPS - 1) // STEPS
    own = scratch + program * (segments - 1) * BLOCK
    total = tl.zeros([BLOCK], tl.float32)
    rest = tl.zeros([BLOCK], tl.float32) + reset
    for block in range(program, tl.cdiv(n, BLOCK), tl.num_programs(0)):
        lanes = tl.cast(block, tl.int64) * BLOCK + tl.arange(0, BLOCK)
        dv = tl.zeros([BLOCK], tl.float32)
        if SEGMENTED:
            checkpoint(x, own, d, T, n, lanes, rest, threshold, reset, CHARGE, SOFT, STRICT, STEPS, BLOCK)
            tl.debug_barrier()  # the scratch is read by threads other than those that wrote it
            for i in range(0, segments - 1):
                segment = segments - 1 - i
                v = tl.load(own + (segment - 1) * BLOCK + tl.arange(0, BLOCK))
                dv, total = segment_backward(
                    grad, x, grad_x, segment * STEPS, T, n, lanes, v, dv, total, d, threshold, reset, alpha, beta,
                    CHARGE, LEARNED, SOFT, DETACH, STRICT, SURROGATE, STEPS, EVEN,
                )  # fmt: skip
            tl.debug_barrier()  # and written again for the next block
        dv, total = segment_backward(
            grad, x, grad_x, 0, T, n, lanes, rest, dv, total, d, threshold, reset, alpha, beta,
            CHARGE, LEARNED, SOFT, DETACH, STRICT, SURROGATE, STEPS, EVEN or SEGMENTED,
        )  # fmt: skip
    if LEARNED:
        tl.store(grad_decay + tl.program_id(0), tl.sum(total, axis=0))
