/* Chunks of work on several threads. A chunk gives the same numbers whoever computes it, so no bit depends on how many threads there are.
   Threads take the next chunk as they become free: one that loses its core holds the others up by a chunk, not by its share of the work. */
#pragma once
#include <pthread.h>
#include <stdatomic.h>

enum { MOST_THREADS = 64, SPINS = 4000 }; /* looks at the next call before a thread goes to sleep: some tens of microseconds */

typedef void (*Chunk)(void *job, int chunk, int thread);

static struct {
    pthread_mutex_t busy, lock; /* one call at a time; what stands below */
    pthread_cond_t begins, ends;
    Chunk run;
    void *job;
    int chunks, wanted, made, working;
    atomic_int next, round;
} crew = {.busy = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER, .begins = PTHREAD_COND_INITIALIZER,
          .ends = PTHREAD_COND_INITIALIZER};

static void take_chunks(int thread) {
    for (int i; (i = atomic_fetch_add(&crew.next, 1)) < crew.chunks;) crew.run(crew.job, i, thread);
}

static void *crew_member(void *number) {
    int thread = (int)(long)number, seen = 0;
    pthread_mutex_lock(&crew.lock);
    for (;;) {
        if (atomic_load(&crew.round) == seen) {
            pthread_mutex_unlock(&crew.lock);
            for (int i = 0; i < SPINS && atomic_load_explicit(&crew.round, memory_order_relaxed) == seen; i++) {
#if defined(__x86_64__) || defined(__i386__)
                __builtin_ia32_pause();
#endif
            }
            pthread_mutex_lock(&crew.lock);
            while (atomic_load(&crew.round) == seen) pthread_cond_wait(&crew.begins, &crew.lock);
        }
        seen = atomic_load(&crew.round);
        if (thread >= crew.wanted || atomic_load(&crew.next) >= crew.chunks) continue;
        crew.working++;
        pthread_mutex_unlock(&crew.lock);
        take_chunks(thread);
        pthread_mutex_lock(&crew.lock);
        if (!--crew.working) pthread_cond_signal(&crew.ends);
    }
    return 0;
}

/* A forked process has the memory of its parent, and none of its threads. */
static void crew_is_gone(void) {
    pthread_mutex_init(&crew.busy, 0), pthread_mutex_init(&crew.lock, 0);
    pthread_cond_init(&crew.begins, 0), pthread_cond_init(&crew.ends, 0);
    crew.made = crew.working = 0;
}

static void hire(int threads) {
    pthread_attr_t attr;
    static int watched;
    if (!watched) watched = !pthread_atfork(0, 0, crew_is_gone);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    for (pthread_t id; crew.made + 1 < threads; crew.made++) /* where none can be had, those that are there do the work */
        if (pthread_create(&id, &attr, crew_member, (void *)(long)(crew.made + 1))) break;
    pthread_attr_destroy(&attr);
}

/* run(job, chunk, thread) for all chunks; `thread` < threads says whose work space it may use. The calling thread is number 0. A second
   call beside a first one, from another thread, does its chunks alone. */
static void in_parallel(int threads, int chunks, Chunk run, void *job) {
    if (threads <= 1 || chunks <= 1 || pthread_mutex_trylock(&crew.busy)) {
        for (int i = 0; i < chunks; i++) run(job, i, 0);
        return;
    }
    pthread_mutex_lock(&crew.lock);
    hire(threads < MOST_THREADS ? threads : MOST_THREADS);
    crew.run = run, crew.job = job, crew.chunks = chunks, crew.wanted = threads;
    atomic_store(&crew.next, 0);
    atomic_fetch_add(&crew.round, 1);
    pthread_cond_broadcast(&crew.begins);
    pthread_mutex_unlock(&crew.lock);
    take_chunks(0);
    pthread_mutex_lock(&crew.lock);
    while (crew.working) pthread_cond_wait(&crew.ends, &crew.lock);
    pthread_mutex_unlock(&crew.lock);
    pthread_mutex_unlock(&crew.busy);
}
