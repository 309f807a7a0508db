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
    int64_t n, length, parts, next;
    double found[PARTS_AT_MOST][RESULTS];
} Shared;

static void take_parts(void *argument) {
    Shared *all = argument;
    for (int64_t k; (k = __atomic_fetch_add(&all->next, 1, __ATOMIC_RELAXED)) < all->parts;) {
        int64_t start = k * all->length, end = start + all->length;
        double *found = all->found[k];
        for (int r = 0; r < RESULTS; r++) found[r] = 0;
        all->part(all->work, start, end < all->n ? end : all->n, found);
    }
}

/* As many threads as PyTorch would use here, at most one for each part. */
static void run_team(Shared *all) {
    static void (*parallel)(void (*)(void *), void *, unsigned, unsigned);
    static int (*threads)(void), (*inside)(void), sought;
    if (!sought) {
        *(void **)&threads = dlsym(RTLD_DEFAULT, "omp_get_max_threads");
        *(void **)&inside = dlsym(RTLD_DEFAULT, "omp_in_parallel");
        *(void **)&parallel = dlsym(RTLD_DEFAULT, "GOMP_parallel");
        sought = 1;
    }
    int64_t team = parallel && threads && inside && !inside() ? threads() : 1;
    if (team > all->parts) team = all->parts;
    if (team > 1)
        parallel(take_parts, all, (unsigned)team, 0);
    else
        take_parts(all);
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
