/* See `crew.h`. */
#include "crew.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

enum { MOST_THREADS = 64, SPINS = 4000 }; /* looks at the next call before a thread goes to sleep: some tens of microseconds */

/* What a call is may be read by a thread that comes too late for it. It then takes no chunk: `next` holds the number of the call beside the
   next chunk, and a call ends when all its chunks are done, so what was read belongs to the chunk that was taken. While a call is written
   down, no chunk can be taken. */
enum { NONE = 0x7fffffff };

static struct {
    pthread_mutex_t lock; /* of those who sleep */
    pthread_cond_t begins;
    _Atomic(Chunk) run;
    _Atomic(void *) job;
    atomic_int busy, chunks, wanted, done, asleep;
    _Atomic uint64_t next; /* number of the call << 32 | chunk */
    int made;
} crew = {.lock = PTHREAD_MUTEX_INITIALIZER, .begins = PTHREAD_COND_INITIALIZER};

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

/* Chunks of the call that `now` belongs to, until it has none left. */
static void take_chunks(uint64_t now, int thread) {
    uint64_t call = now >> 32;
    while (now >> 32 == call) {
        Chunk run = atomic_load_explicit(&crew.run, memory_order_relaxed);
        void *job = atomic_load_explicit(&crew.job, memory_order_relaxed);
        int chunk = (int)(now & 0xffffffff);
        if (chunk >= atomic_load_explicit(&crew.chunks, memory_order_relaxed) ||
            thread >= atomic_load_explicit(&crew.wanted, memory_order_relaxed))
            return;
        if (!atomic_compare_exchange_weak(&crew.next, &now, now + 1)) continue; /* `now` is what stands there */
        run(job, chunk, thread);
        atomic_fetch_add(&crew.done, 1);
        now = atomic_load(&crew.next);
    }
}

static void *crew_member(void *number) {
    int thread = (int)(long)number;
    uint64_t seen = 0;
    for (;;) {
        uint64_t now = atomic_load(&crew.next);
        for (int i = 0; i < SPINS && now >> 32 == seen; i++, now = atomic_load(&crew.next)) relax();
        if (now >> 32 == seen) {
            pthread_mutex_lock(&crew.lock);
            atomic_fetch_add(&crew.asleep, 1);
            while ((now = atomic_load(&crew.next)) >> 32 == seen) pthread_cond_wait(&crew.begins, &crew.lock);
            atomic_fetch_sub(&crew.asleep, 1);
            pthread_mutex_unlock(&crew.lock);
        }
        seen = now >> 32;
        take_chunks(now, thread);
    }
    return 0;
}

/* A forked process has the memory of its parent, and none of its threads. */
static void crew_is_gone(void) {
    pthread_mutex_init(&crew.lock, 0), pthread_cond_init(&crew.begins, 0);
    atomic_store(&crew.busy, 0), atomic_store(&crew.asleep, 0);
    crew.made = 0;
}

static void hire(int threads) {
    pthread_attr_t attr;
    static int watched;
    if (crew.made + 1 >= threads) return;
    if (!watched) watched = !pthread_atfork(0, 0, crew_is_gone);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    for (pthread_t id; crew.made + 1 < threads; crew.made++) /* where none can be had, those that are there do the work */
        if (pthread_create(&id, &attr, crew_member, (void *)(long)(crew.made + 1))) break;
    pthread_attr_destroy(&attr);
}

void in_parallel(int threads, int chunks, Chunk run, void *job) {
    if (threads <= 1 || chunks <= 1 || atomic_exchange(&crew.busy, 1)) {
        for (int i = 0; i < chunks; i++) run(job, i, 0);
        return;
    }
    hire(threads < MOST_THREADS ? threads : MOST_THREADS);
    uint64_t now = ((atomic_load(&crew.next) >> 32) + 1) << 32;
    atomic_store(&crew.next, now | NONE);
    atomic_store(&crew.done, 0);
    atomic_store(&crew.run, run), atomic_store(&crew.job, job), atomic_store(&crew.chunks, chunks), atomic_store(&crew.wanted, threads);
    now += 1ull << 32;
    atomic_store(&crew.next, now);
    if (atomic_load(&crew.asleep)) {
        pthread_mutex_lock(&crew.lock);
        pthread_cond_broadcast(&crew.begins);
        pthread_mutex_unlock(&crew.lock);
    }
    take_chunks(now, 0);
    for (int i = 0; atomic_load(&crew.done) < chunks; i++) /* who computes the last chunks may wait for a core: this one */
        if (i < SPINS) relax();
        else sched_yield();
    atomic_store(&crew.busy, 0);
}
