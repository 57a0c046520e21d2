// Threads that do one row of jobs after another, and wait for one another in between.
//
//     together(threads, [&](Team &team) {
//         team.each(rows, [&](int64_t row) { ... });       // each row is one thread's; afterwards all rows are done
//         team.each(columns, [&](int64_t column) { ... });
//     });
//
// A thread that waits spins for some microseconds before it gives its processor away: a small layer takes as long as the
// system needs to wake a thread up. Which thread does a job is chance; a job must not depend on it.
#pragma once
#include <atomic>
#include <cstdint>
#include <thread>
#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __SSE2__
#include <immintrin.h>
#endif

class Team {
    int threads = 1;
    std::atomic<int64_t> next{0};
    std::atomic<int> arrived{0};
    std::atomic<uint32_t> round{0};

    static const int SPINS = 20000;  // of some nanoseconds each

    static void pause() {
#ifdef __SSE2__
        _mm_pause();
#endif
    }
    void wait() {
        const uint32_t now = round.load(std::memory_order_acquire);
        if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == threads) {
            next.store(0, std::memory_order_relaxed), arrived.store(0, std::memory_order_relaxed);
            round.store(now + 1, std::memory_order_release);
            return;
        }
        for (int spin = 0; round.load(std::memory_order_acquire) == now; spin++)
            spin < SPINS ? pause() : std::this_thread::yield();
    }
    template <class Work> friend void together(int threads, Work work);

  public:
    int size() const { return threads; }

    // work(job) for the jobs 0 ... jobs - 1, in no order. All threads of the team call this with the same jobs.
    template <class Work> void each(int64_t jobs, Work work) {
        if (threads == 1) {
            for (int64_t job = 0; job < jobs; job++) work(job);
            return;
        }
        for (int64_t job; (job = next.fetch_add(1, std::memory_order_relaxed)) < jobs;) work(job);
        wait();
    }
};

// work(team) in each of the threads; fewer than asked for where OpenMP gives fewer.
template <class Work> void together(int threads, Work work) {
    Team team;
#ifdef _OPENMP
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp single
        team.threads = omp_get_num_threads();
        work(team);
    }
#else
    (void)threads;
    work(team);
#endif
}
