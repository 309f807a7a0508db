/* Shares out a tensor to the threads that PyTorch's operations use: those of OpenMP, found in the
   process, so that no others compete with them. Included by kernel.c. */

#include <dlfcn.h>

/* What a part of the work reads and writes; it finds four sums and a largest value. */
typedef struct {
    const float *x;
    float *copy;
    float shift, low, high;
    int large;
} Work;

enum { MOST = 4, RESULTS };

typedef void Part(const Work *work, int64_t start, int64_t end, double *found);

/* Fewer numbers are not worth a thread. The length of a part depends on nothing but the tensor's,
   for sums to be the same with any number of threads. */
#define LEAST (16 * BLOCK)
#define PARTS_AT_MOST 64

typedef struct {
    Part *part;
    const Work *work;
    int64_t n, length, parts;
    int (*team)(void), (*member)(void); /* how many threads there are, and which this is */
    double found[PARTS_AT_MOST][RESULTS];
} Shared;

/* Each thread takes what lies together, as it does in PyTorch's operations: part of that is still
   in its cache. */
static void take_parts(void *argument) {
    Shared *all = argument;
    int64_t team = all->team ? all->team() : 1, at = all->team ? all->member() : 0;
    int64_t first = all->parts * at / team, last = all->parts * (at + 1) / team;
    for (int64_t k = first; k < last; k++) {
        int64_t start = k * all->length, end = start + all->length;
        double *found = all->found[k];
        for (int r = 0; r < RESULTS; r++) found[r] = 0;
        all->part(all->work, start, end < all->n ? end : all->n, found);
    }
}

/* As many threads as PyTorch would use here, at most one for each part. */
static void run_team(Shared *all) {
    static void (*parallel)(void (*)(void *), void *, unsigned, unsigned);
    static int (*threads)(void), (*inside)(void), (*team)(void), (*member)(void), sought;
    if (!sought) {
        *(void **)&threads = dlsym(RTLD_DEFAULT, "omp_get_max_threads");
        *(void **)&inside = dlsym(RTLD_DEFAULT, "omp_in_parallel");
        *(void **)&team = dlsym(RTLD_DEFAULT, "omp_get_num_threads");
        *(void **)&member = dlsym(RTLD_DEFAULT, "omp_get_thread_num");
        *(void **)&parallel = dlsym(RTLD_DEFAULT, "GOMP_parallel");
        sought = 1;
    }
    int found = parallel && threads && inside && team && member;
    int64_t wanted = found && !inside() ? threads() : 1;
    if (wanted > all->parts) wanted = all->parts;
    if (wanted > 1) {
        all->team = team;
        all->member = member;
        parallel(take_parts, all, (unsigned)wanted, 0);
    } else {
        take_parts(all);
    }
}

/* What all parts of n numbers have found. */
static void share_out(Part *part, const Work *work, int64_t n, double *found) {
    for (int r = 0; r < RESULTS; r++) found[r] = 0;
    if (n < 2 * LEAST) {
        part(work, 0, n, found);
        return;
    }
    Shared all = {.part = part, .work = work, .n = n, .length = LEAST};
    while (n > all.length * PARTS_AT_MOST) all.length *= 2;
    all.parts = (n + all.length - 1) / all.length;
    run_team(&all);
    for (int64_t k = 0; k < all.parts; k++) {
        for (int r = 0; r < MOST; r++) found[r] += all.found[k][r];
        if (all.found[k][MOST] > found[MOST]) found[MOST] = all.found[k][MOST];
    }
}
