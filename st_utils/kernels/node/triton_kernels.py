"""Triton kernels of the integrate-and-fire neurons: the whole time loop in one pass over memory, forward and backward.

    grid = (triton.cdiv(n, 128),)     # one program per 128 neurons; x, spikes [T, n]
    fire_forward[grid](x=x, spikes=spikes, decay=0.5, T=4, n=n, threshold=1.0, reset=0.0, CHARGE="decay", LEARNED=False,
                       SOFT=False, STRICT=False, STEPS=4, EVEN=True, ALIGNED=False, BLOCK=128)

Definition: st_utils/kernels/node/definition.py. Launched by `forward` and `backward` of `cuda.py`.

Forward, with d = 1 / tau, r the rest, theta the threshold and v_0 = r, for t = 1 ... T:

    h_t = v_{t-1} + (x_t - (v_{t-1} - r)) d           CHARGE "decay"; "if" and "plain" as in definition.py
    s_t = 1 where h_t >= theta, else 0
    v_t = (1 - s_t) h_t + s_t r                       SOFT: v_t = h_t - theta s_t

Backward, with g_t = dL/ds_t, S_t = surrogate(h_t - theta) and dL/dv_T = 0, for t = T ... 1:

    dL/dh_t = (g_t + (r - h_t) dL/dv_t) S_t + (1 - s_t) dL/dv_t      SOFT: (g_t - theta dL/dv_t) S_t + dL/dv_t
    dL/dv_{t-1} = (1 - d) dL/dh_t                     CHARGE "if": dL/dh_t;  DETACH "membrane": 0
    dL/dx_t = d dL/dh_t                               CHARGE "if" and "plain": dL/dh_t
    dL/dd = sum over t and neurons of (x_t - (v_{t-1} - r)) dL/dh_t  CHARGE "plain": -(v_{t-1} - r) dL/dh_t

DETACH "reset" and "membrane" leave out the term with dL/dv_t before S_t.

The expressions and their order are those of the definition, and the launch forbids fused multiply-adds, so that the
spikes are equal bit for bit. The backward pass computes h_t again from x, in registers, where keeping it would cost
a tensor of x's size.

T and n are run-time numbers, so that a new batch size compiles nothing. Constants, and what each one saves:

    LEARNED     `decay` is a pointer to a learned 1 / tau; a constant one is an argument and costs no load
    STRICT      fires where h > theta
    STEPS       steps that are unrolled: their loads are all in flight before the first result is used
    EVEN        STEPS divides T: no mask in time
    SEGMENTED   STEPS < T: the backward pass goes segment by segment, each from a v that a first sweep has kept
    ALIGNED     16 divides n, which allows loads of 16 bytes; judged by the shape of a sample, not by the batch
    BLOCK       neurons per program
"""

import triton
import triton.language as tl


@triton.jit
def charge(v, x, decay, reset, CHARGE: tl.constexpr):
    """h_t from v_{t-1} and x_t."""
    if CHARGE == "if":
        return v + x
    elif CHARGE == "decay":  # noqa: RET505 (Triton has no early return)
        return v + (x - (v - reset)) * decay
    else:
        return v - (v - reset) * decay + x


@triton.jit
def fire(h, threshold, STRICT: tl.constexpr):
    """s_t from h_t: 0 or 1, float32."""
    u = h - threshold
    if STRICT:
        return (u > 0).to(tl.float32)
    else:  # noqa: RET505
        return (u >= 0).to(tl.float32)


@triton.jit
def after(h, s, threshold, reset, SOFT: tl.constexpr):
    """v_t from h_t and s_t."""
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
    """ds/du at u = h - theta: a shape of `surrogates.py` with its a (alpha) and b (beta)."""
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
        tl.static_assert(SURROGATE == "fourier", "unknown shape of a surrogate")
        total = tl.zeros_like(u)
        for i in range(1, tl.cast(alpha, tl.int32)):
            total += tl.cos(tl.cast(2 * i - 1, tl.float32) * (beta * u))
        return beta * 0.636619772 * total  # 2 / pi


@triton.jit
def lanes_in_row(t, T, n, EVEN: tl.constexpr):
    """How many neurons row t has: n, or 0 from T on. Compared with the lanes it is a mask that keeps loads wide."""
    if EVEN:
        return n
    else:  # noqa: RET505
        return tl.where(t < T, n, 0)


@triton.jit
def load_steps(x, start, T, n, lanes, STATIC: tl.constexpr, STEPS: tl.constexpr, EVEN: tl.constexpr):
    """Rows start ... start + STEPS - 1 of x [T, n] as float32, zeros from T on.

    With STATIC x is [1, n], one row for all steps. All loads are issued before the first is used: latencies overlap.
    """
    rows = ()
    for k in tl.static_range(STEPS):
        inside = lanes < lanes_in_row(start + k, T=T, n=n, EVEN=EVEN)
        row = x if STATIC else x + (start + k) * n
        rows += (tl.load(row + lanes, mask=inside, other=0.0).to(tl.float32),)
    return rows


@triton.jit(do_not_specialize=["T", "n"])
def fire_forward(
    x, spikes, decay, T: tl.int32, n: tl.int64, threshold: tl.float32, reset: tl.float32,
    CHARGE: tl.constexpr, LEARNED: tl.constexpr, SOFT: tl.constexpr, STRICT: tl.constexpr,
    STEPS: tl.constexpr, EVEN: tl.constexpr, ALIGNED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """x [T, n] -> spikes [T, n]. Grid: (cdiv(n, BLOCK),). Only spikes are written, v stays in registers."""
    n = n.to(tl.int64)
    if ALIGNED:  # shows the compiler that 16 divides n; a hint on an argument that is not specialized is lost
        n = n // 16 * 16
    d = tl.load(decay) if LEARNED else decay
    lanes = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    v = tl.zeros([BLOCK], tl.float32) + reset
    for start in range(0, T, STEPS):
        rows = load_steps(x, start, T=T, n=n, lanes=lanes, STATIC=False, STEPS=STEPS, EVEN=EVEN)
        for k in tl.static_range(STEPS):
            h = charge(v, rows[k], d, reset, CHARGE=CHARGE)
            s = fire(h, threshold, STRICT=STRICT)
            inside = lanes < lanes_in_row(start + k, T=T, n=n, EVEN=EVEN)
            tl.store(spikes + (start + k) * n + lanes, s.to(spikes.dtype.element_ty), mask=inside)
            v = after(h, s, threshold, reset, SOFT=SOFT)


@triton.jit
def keep_membranes(
    x, scratch, d, T, n, lanes, v, threshold, reset,
    CHARGE: tl.constexpr, SOFT: tl.constexpr, STRICT: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write v at the end of every segment but the last: scratch [segments - 1, BLOCK]."""
    for start in range(0, T - STEPS, STEPS):
        rows = load_steps(x, start, T=T, n=n, lanes=lanes, STATIC=False, STEPS=STEPS, EVEN=True)  # all rows are below T
        for k in tl.static_range(STEPS):
            h = charge(v, rows[k], d, reset, CHARGE=CHARGE)
            v = after(h, fire(h, threshold, STRICT=STRICT), threshold, reset, SOFT=SOFT)
        tl.store(scratch + (start // STEPS) * BLOCK + tl.arange(0, BLOCK), v)


@triton.jit
def grad_of_h(
    grad, h, dv, is_last, threshold, reset, alpha, beta,
    SOFT: tl.constexpr, DETACH: tl.constexpr, STRICT: tl.constexpr, SURROGATE: tl.constexpr,
):  # fmt: skip
    """dL/dh_t from dL/ds_t (`grad`) and dL/dv_t (`dv`)."""
    if SOFT:
        kept = dv
        by_reset = -threshold * dv
    else:
        kept = (1.0 - fire(h, threshold, STRICT=STRICT)) * dv
        by_reset = (reset - h) * dv
    # v_T is not used: where h_T is infinite, (r - h_T) 0 would be NaN, and the definition has no such term.
    through = grad + tl.where(is_last, 0.0, by_reset) if DETACH == "nothing" else grad
    return through * surrogate(h - threshold, alpha, beta, SURROGATE=SURROGATE) + kept


@triton.jit
def grad_of_v(dh, d, CHARGE: tl.constexpr, DETACH: tl.constexpr):
    """dL/dv_{t-1} from dL/dh_t."""
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
    """STEPS steps forward from the v before them, then backward from the dv after them.

    Returns the dv before them, and `total` plus their share of dL/dd.
    """
    rows = load_steps(x, start, T=T, n=n, lanes=lanes, STATIC=False, STEPS=STEPS, EVEN=EVEN)
    grads = load_steps(grad, start, T=T, n=n, lanes=lanes, STATIC=False, STEPS=STEPS, EVEN=EVEN)
    hs = ()
    slopes = ()  # dh_t / dd
    for k in tl.static_range(STEPS):
        h = charge(v, rows[k], d, reset, CHARGE=CHARGE)
        if LEARNED:
            slopes += ((rows[k] - (v - reset)) if CHARGE == "decay" else -(v - reset),)
        hs += (h,)
        v = after(h, fire(h, threshold, STRICT=STRICT), threshold, reset, SOFT=SOFT)
    for k in tl.static_range(STEPS):
        t = start + STEPS - 1 - k
        dh = grad_of_h(
            grads[STEPS - 1 - k], hs[STEPS - 1 - k], dv, t + 1 == T, threshold, reset, alpha, beta,
            SOFT=SOFT, DETACH=DETACH, STRICT=STRICT, SURROGATE=SURROGATE,
        )  # fmt: skip
        if not EVEN:  # nothing flows back from T on, not even a NaN
            dh = tl.where(t < T, dh, 0.0)
        if LEARNED:
            total += dh * slopes[STEPS - 1 - k]
        dx = dh * d if CHARGE == "decay" else dh
        inside = lanes < lanes_in_row(t, T=T, n=n, EVEN=EVEN)
        tl.store(grad_x + t * n + lanes, dx.to(grad_x.dtype.element_ty), mask=inside)
        dv = grad_of_v(dh, d, CHARGE=CHARGE, DETACH=DETACH)
    return dv, total


@triton.jit(do_not_specialize=["T", "n"])
def fire_backward(
    grad, x, grad_x, grad_decay, scratch, decay, T: tl.int32, n: tl.int64, threshold: tl.float32, reset: tl.float32,
    alpha: tl.float32, beta: tl.float32,
    CHARGE: tl.constexpr, LEARNED: tl.constexpr, SOFT: tl.constexpr, DETACH: tl.constexpr, STRICT: tl.constexpr,
    SURROGATE: tl.constexpr, SEGMENTED: tl.constexpr,
    STEPS: tl.constexpr, EVEN: tl.constexpr, ALIGNED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """grad = dL/ds and x [T, n] -> grad_x [T, n]; with LEARNED each program's share of dL/dd -> grad_decay [programs].

    Grid: (programs,). Program p takes the blocks p, p + programs, ..., and adds its shares of dL/dd in this order; the
    caller adds up the programs'. No atomics: every run gives the same bits. With SEGMENTED, a first sweep over x keeps
    v at the segments' ends in the program's own scratch [segments - 1, BLOCK], which is small enough for the cache.
    """
    n = n.to(tl.int64)
    if ALIGNED:  # as in fire_forward
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
            keep_membranes(
                x, own, d, T=T, n=n, lanes=lanes, v=rest, threshold=threshold, reset=reset,
                CHARGE=CHARGE, SOFT=SOFT, STRICT=STRICT, STEPS=STEPS, BLOCK=BLOCK,
            )  # fmt: skip
            tl.debug_barrier()  # a thread may read what another one wrote to the scratch
            for i in range(0, segments - 1):
                segment = segments - 1 - i
                v = tl.load(own + (segment - 1) * BLOCK + tl.arange(0, BLOCK))
                dv, total = segment_backward(
                    grad, x, grad_x, segment * STEPS, T=T, n=n, lanes=lanes, v=v, dv=dv, total=total, d=d,
                    threshold=threshold, reset=reset, alpha=alpha, beta=beta, CHARGE=CHARGE, LEARNED=LEARNED, SOFT=SOFT,
                    DETACH=DETACH, STRICT=STRICT, SURROGATE=SURROGATE, STEPS=STEPS, EVEN=EVEN,
                )  # fmt: skip
            tl.debug_barrier()  # all have read the scratch before the next block writes it
        # The first segment. With several segments it is whole, whether or not STEPS divides T: it needs no mask.
        dv, total = segment_backward(
            grad, x, grad_x, 0, T=T, n=n, lanes=lanes, v=rest, dv=dv, total=total, d=d,
            threshold=threshold, reset=reset, alpha=alpha, beta=beta, CHARGE=CHARGE, LEARNED=LEARNED, SOFT=SOFT,
            DETACH=DETACH, STRICT=STRICT, SURROGATE=SURROGATE, STEPS=STEPS, EVEN=EVEN or SEGMENTED,
        )  # fmt: skip
    if LEARNED:
        tl.store(grad_decay + tl.program_id(0), tl.sum(total, axis=0))
