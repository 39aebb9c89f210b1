/* Chunks of work on several threads. A chunk gives the same numbers whoever computes it, so no bit depends on how many threads there are.
   Threads take the next chunk as they become free: one that loses its core holds the others up by a chunk, not by its share of the work.
   A call of some microseconds pays: between calls that follow each other at once nobody sleeps and nothing is locked. A process has one
   crew: the threads of two would spin for the same cores. */
#pragma once
#include "vectors.h"

typedef void (*Chunk)(void *job, int chunk, int thread);

/* run(job, chunk, thread) for all chunks; `thread` < threads says whose work space it may use. The calling thread is number 0. A second
   call beside a first one, from another thread, does its chunks alone. */
HIDDEN void in_parallel(int threads, int chunks, Chunk run, void *job);
