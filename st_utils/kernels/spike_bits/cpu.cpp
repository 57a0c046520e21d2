// Spikes as bits, small counts as bytes, and back; loaded by pack.py. Definition: unpack(pack(x)) is x, bit for bit.
//
//     if (zoo_pack_bits(sizeof(float), x, &unit, out, n, threads))        // false where a number is neither 0 nor unit
//         zoo_unpack_bits(sizeof(float), out, &unit, x, n, threads);
//
// A bit or a byte holds the k of a number k * unit. Bits go in blocks of 512 numbers: bit b of byte j of a block is number
// 64 b + j, so that a loop handles 64 numbers side by side. Packing compares every number with what unpacking will give,
// and stops at the first block that differs.
#include <atomic>
#include <cstdint>
#include <cstring>

namespace {

template <class To, class From> To bits(From from) {
    To to;
    static_assert(sizeof(To) == sizeof(From), "same size");
    std::memcpy(&to, &from, sizeof(to));
    return to;
}

const int64_t LANES = 64, BLOCK = 8 * LANES;

template <class Word> bool pack_bits(const Word *__restrict x, Word unit, uint8_t *__restrict out, int64_t n) {
    Word wrong = 0;
    uint8_t packed[LANES] = {};
    if (n == BLOCK) {
        for (int b = 0; b < 8; b++)
            for (int64_t j = 0; j < LANES; j++) {
                const Word word = x[b * LANES + j];
                packed[j] |= uint8_t((word == unit) << b);
                wrong |= word == unit ? Word(0) : word;
            }
    } else {
        for (int64_t i = 0; i < n; i++) {
            packed[i % LANES] |= uint8_t((x[i] == unit) << (i / LANES));
            wrong |= x[i] == unit ? Word(0) : x[i];
        }
    }
    std::memcpy(out, packed, LANES);
    return !wrong;
}

template <class Word> void unpack_bits(const uint8_t *__restrict in, Word unit, Word *__restrict x, int64_t n) {
    if (n == BLOCK) {
        for (int b = 0; b < 8; b++)
            for (int64_t j = 0; j < LANES; j++) x[b * LANES + j] = Word(0) - Word((in[j] >> b) & 1) & unit;
    } else {
        for (int64_t i = 0; i < n; i++) x[i] = Word(0) - Word((in[i % LANES] >> (i / LANES)) & 1) & unit;
    }
}

template <class Real, class Word>
bool pack_bytes(const Real *__restrict x, Real unit, uint8_t *__restrict out, int64_t n) {
    const Real inverse = Real(1) / unit;  // exact: a power of two
    const Word sign = Word(1) << (8 * sizeof(Word) - 1);  // of -0 too, which the compiler may keep through an integer
    Word wrong = 0;
    for (int64_t i = 0; i < n; i++) {
        const Real k = x[i] * inverse;
        const int32_t whole = int32_t(k >= 0 && k <= 255 ? k : Real(0));
        wrong |= (bits<Word>(Real(whole) * unit) ^ bits<Word>(x[i])) | (bits<Word>(x[i]) & sign);
        out[i] = uint8_t(whole);
    }
    return !wrong;
}

template <class Real> void unpack_bytes(const uint8_t *__restrict in, Real unit, Real *__restrict x, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] = Real(in[i]) * unit;
}

// work(block, first number, count) for every block of n numbers, on all threads; after the first false, no more, and false.
template <class Work> bool all_blocks(int64_t n, int threads, Work work) {
    const int64_t blocks = (n + BLOCK - 1) / BLOCK;
    std::atomic<bool> fine{true};
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t b = 0; b < blocks; b++)
        if (fine.load(std::memory_order_relaxed) && !work(b, b * BLOCK, n - b * BLOCK < BLOCK ? n - b * BLOCK : BLOCK))
            fine.store(false, std::memory_order_relaxed);
    return fine;
}

template <class Word> bool bits_of(const void *x, const void *unit, uint8_t *out, int64_t n, int threads) {
    const Word one = *static_cast<const Word *>(unit);
    return all_blocks(n, threads, [=](int64_t b, int64_t at, int64_t count) {
        return pack_bits(static_cast<const Word *>(x) + at, one, out + b * LANES, count);
    });
}

template <class Word> bool from_bits(const uint8_t *in, const void *unit, void *x, int64_t n, int threads) {
    const Word one = *static_cast<const Word *>(unit);
    return all_blocks(n, threads, [=](int64_t b, int64_t at, int64_t count) {
        return unpack_bits(in + b * LANES, one, static_cast<Word *>(x) + at, count), true;
    });
}

template <class Real, class Word> bool bytes_of(const void *x, double unit, uint8_t *out, int64_t n, int threads) {
    return all_blocks(n, threads, [=](int64_t, int64_t at, int64_t count) {
        return pack_bytes<Real, Word>(static_cast<const Real *>(x) + at, Real(unit), out + at, count);
    });
}

template <class Real> bool from_bytes(const uint8_t *in, double unit, void *x, int64_t n, int threads) {
    return all_blocks(n, threads, [=](int64_t, int64_t at, int64_t count) {
        return unpack_bytes(in + at, Real(unit), static_cast<Real *>(x) + at, count), true;
    });
}

}  // namespace

// `size` is the bytes per number, `unit` points at the number that a set bit stands for.
extern "C" int zoo_pack_bits(int size, const void *x, const void *unit, uint8_t *out, int64_t n, int threads) {
    return size == 1   ? bits_of<uint8_t>(x, unit, out, n, threads)
           : size == 2 ? bits_of<uint16_t>(x, unit, out, n, threads)
           : size == 4 ? bits_of<uint32_t>(x, unit, out, n, threads)
                       : bits_of<uint64_t>(x, unit, out, n, threads);
}

extern "C" void zoo_unpack_bits(int size, const uint8_t *in, const void *unit, void *x, int64_t n, int threads) {
    size == 1   ? from_bits<uint8_t>(in, unit, x, n, threads)
    : size == 2 ? from_bits<uint16_t>(in, unit, x, n, threads)
    : size == 4 ? from_bits<uint32_t>(in, unit, x, n, threads)
                : from_bits<uint64_t>(in, unit, x, n, threads);
}

// The same with a byte per number; `unit` is a power of two, numbers are float (size 4) or double.
extern "C" int zoo_pack_bytes(int size, const void *x, double unit, uint8_t *out, int64_t n, int threads) {
    return size == 4 ? bytes_of<float, uint32_t>(x, unit, out, n, threads) : bytes_of<double, uint64_t>(x, unit, out, n, threads);
}

extern "C" void zoo_unpack_bytes(int size, const uint8_t *in, double unit, void *x, int64_t n, int threads) {
    size == 4 ? from_bytes<float>(in, unit, x, n, threads) : from_bytes<double>(in, unit, x, n, threads);
}
