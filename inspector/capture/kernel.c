/* One pass over memory for the statistics of a tensor, where PyTorch needs one pass for each.

   Plain C over addresses and sizes: it knows nothing of PyTorch or Python, so that one build
   serves every version. Tensors are dense float32 on the CPU. Sums are kept in float over short
   blocks and in double beyond, and taken again in double where squares overflow or cancel. Large
   tensors are shared out to as many threads as PyTorch's operations use; what is added to what
   does not depend on their number. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* for RTLD_DEFAULT */
#endif
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE__
#include <immintrin.h>
#endif

#define BLOCK 4096
#include "threads.c"

/* Sixteen numbers at a time, from any address; compilers split them where registers are shorter. */
typedef float V __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t I __attribute__((vector_size(64), aligned(4), may_alias));
#define AT(x) (*(const V *)(x))
/* Processors fetch ahead by themselves, but not across the pages of 4 KiB that most memory has. */
#define AHEAD 1024
#define FETCH(x, i, end) fetch((x) + ((i) + AHEAD < (end) ? (i) + AHEAD : (i)))
#define EACH(X) X(0) X(1) X(2) X(3)
#define ZERO(k) V s##k = {0};

static void fetch(const float *x) {
    for (int k = 0; k < 4; k++) __builtin_prefetch(x + 16 * k);
}

/* Asks for the beginning of a tensor that is to be read soon. */
void inspector_call_for(const float *x, int64_t n) {
    for (int64_t i = 0; i < n && i < 512; i += 16) __builtin_prefetch(x + i);
}

typedef struct {
    double sum, squares;
    int64_t zeros, outside;
} Sums;

static double total_of(V a) {
    float t[16];
    memcpy(t, &a, 64);
    for (int w = 8; w; w /= 2)
        for (int k = 0; k < w; k++) t[k] += t[k + w];
    return t[0];
}

static int64_t count_of(I a) {
    int64_t t = 0;
    for (int k = 0; k < 16; k++) t += a[k];
    return t;
}

static int64_t count_nonfinite(const float *x, int64_t n) {
    int64_t found = 0;
    for (int64_t i = 0; i < n; i++) found += !(fabsf(x[i]) <= 3.4028235e38f);
    return found;
}

/* Part of a tensor: the sum of its squares, inexact where it is not finite, or tiny. */
static void squares_part(const Work *work, int64_t start, int64_t end, double *found) {
    const float *x = work->x;
    for (; start < end; start += BLOCK) {
        int64_t i = start, stop = start + BLOCK < end ? start + BLOCK : end;
        EACH(ZERO)
        for (V v; i + 64 <= stop; i += 64) {
            FETCH(x, i, end);
#define ADD(k) v = AT(x + i + 16 * k), s##k += v * v;
            EACH(ADD)
#undef ADD
        }
        float rest = 0;
        for (; i < stop; i++) rest += x[i] * x[i];
        found[0] += total_of((s0 + s1) + (s2 + s3)) + rest;
    }
}

static double squares_in_double(const float *x, int64_t n) {
    double total = 0;
    for (int64_t i = 0; i < n; i++) total += (double)x[i] * x[i];
    return total;
}

static int is_exact(double squares) { return isfinite(squares) && squares > 1e-30; }

static double squares_of(const float *x, int64_t n) {
    double found[RESULTS];
    share_out(squares_part, &(Work){.x = x}, n, found);
    return is_exact(found[0]) ? found[0] : squares_in_double(x, n);
}

/* A finite sum of squares has finite terms; only where it is not is a second look needed. */
int inspector_finite(const float *x, int64_t n) {
    double found[RESULTS];
    share_out(squares_part, &(Work){.x = x}, n, found);
    return isfinite(found[0]) || !count_nonfinite(x, n);
}

/* Part of a tensor: sum and sum of squares of x - shift, zeros, and what is outside the bounds. */
static inline __attribute__((always_inline)) void around_some(const Work *work, int64_t start,
                                                              int64_t end, double *found,
                                                              int bounded) {
    const float *x = work->x;
    float shift = work->shift, low = work->low, high = work->high;
    V by = (V){0} + shift;
    for (; start < end; start += BLOCK) {
        int64_t i = start, stop = start + BLOCK < end ? start + BLOCK : end;
        EACH(ZERO)
#define MORE(k) V q##k = {0}; I z##k = {0}, o##k = {0};
        EACH(MORE)
#undef MORE
        for (V v; i + 64 <= stop; i += 64) {
            FETCH(x, i, end);
#define ADD(k) v = AT(x + i + 16 * k), z##k -= v == 0.0f; \
    if (bounded) o##k -= (v < low) | (v > high); \
    v -= by, s##k += v, q##k += v * v;
            EACH(ADD)
#undef ADD
        }
        found[0] += total_of((s0 + s1) + (s2 + s3));
        found[1] += total_of((q0 + q1) + (q2 + q3));
        found[2] += (double)count_of((z0 + z1) + (z2 + z3));
        if (bounded) found[3] += (double)count_of((o0 + o1) + (o2 + o3));
        for (; i < stop; i++) {
            float d = x[i] - shift;
            found[0] += d;
            found[1] += d * d;
            found[2] += x[i] == 0;
            if (bounded) found[3] += (x[i] < low) | (x[i] > high);
        }
    }
}

static void around_part(const Work *work, int64_t start, int64_t end, double *found) {
    around_some(work, start, end, found, 0);
}

static void bounded_part(const Work *work, int64_t start, int64_t end, double *found) {
    around_some(work, start, end, found, 1);
}

static Sums around(const float *x, int64_t n, float shift, int bounded, float low, float high) {
    double found[RESULTS];
    Work work = {.x = x, .shift = shift, .low = low, .high = high};
    share_out(bounded ? bounded_part : around_part, &work, n, found);
    return (Sums){found[0], found[1], (int64_t)found[2], (int64_t)found[3]};
}

static Sums around_double(const float *x, int64_t n, double shift) {
    Sums t = {0};
    for (int64_t i = 0; i < n; i++) {
        double d = x[i] - shift;
        t.sum += d;
        t.squares += d * d;
    }
    return t;
}

/* row: column, count, sum, variance, zeros, saturated, non-finite, 1 */
void inspector_output(const float *x, int64_t n, double low, double high, int bounded,
                      double column, double *row) {
    double *out = row + 2;
    row[0] = column;
    row[1] = (double)n;
    row[7] = 1;
    float shift = isfinite(x[0]) ? x[0] : 0;
    Sums t = around(x, n, shift, bounded, (float)low, (float)high);
    int64_t zeros = t.zeros, outside = t.outside;
    double bad = 0;
    if (!isfinite(t.squares)) {
        bad = (double)count_nonfinite(x, n);
        t = around_double(x, n, shift);
    }
    double mean = t.sum / n, square = t.squares / n, variance = square - mean * mean;
    if (!bad && variance < 1e-3 * square) { /* the shift was far from the mean: again from there */
        double centre = shift + mean;
        Sums u = around_double(x, n, centre);
        double rest = u.sum / n;
        variance = u.squares / n - rest * rest;
    }
    out[0] = (shift + mean) * n;
    out[1] = variance > 0 ? variance : (variance == variance ? 0 : variance);
    out[2] = (double)zeros;
    out[3] = (double)outside;
    out[4] = bad;
}

double inspector_norm(const float *x, int64_t n) { return sqrt(squares_of(x, n)); }

void inspector_norms(int64_t count, const float **x, const int64_t *n, double *norm) {
    for (int64_t k = 0; k < count; k++) norm[k] = sqrt(squares_of(x[k], n[k]));
}

static I larger(I a, I b) {
    I first = a > b;
    return (a & first) | (b & ~first);
}

/* Part of a gradient: the sum of its squares, and its largest value as bits: they order like the
   numbers, NaN above infinity. */
static void gradient_part(const Work *work, int64_t start, int64_t end, double *found) {
    const float *x = work->x;
    int32_t most = 0;
    for (; start < end; start += BLOCK) {
        int64_t i = start, stop = start + BLOCK < end ? start + BLOCK : end;
        EACH(ZERO)
#define MORE(k) I m##k = {0};
        EACH(MORE)
#undef MORE
        for (V v; i + 64 <= stop; i += 64) {
            FETCH(x, i, end);
#define ADD(k) v = AT(x + i + 16 * k), s##k += v * v, m##k = larger(m##k, (I)v & 0x7fffffff);
            EACH(ADD)
#undef ADD
        }
        found[0] += total_of((s0 + s1) + (s2 + s3));
        m0 = larger(larger(m0, m1), larger(m2, m3));
        for (int j = 0; j < 16; j++) most = m0[j] > most ? m0[j] : most;
        for (; i < stop; i++) {
            int32_t bits;
            memcpy(&bits, x + i, 4);
            bits &= 0x7fffffff;
            found[0] += x[i] * x[i];
            most = bits > most ? bits : most;
        }
    }
    found[MOST] = most;
}

void inspector_gradients(int64_t count, const float **x, const int64_t *n, double *norm,
                         double *largest, double *nonfinite) {
    for (int64_t k = 0; k < count; k++) {
        double found[RESULTS];
        share_out(gradient_part, &(Work){.x = x[k]}, n[k], found);
        int exact = is_exact(found[0]);
        norm[k] = sqrt(exact ? found[0] : squares_in_double(x[k], n[k]));
        nonfinite[k] = exact ? 0 : (double)count_nonfinite(x[k], n[k]);
        int32_t bits = (int32_t)found[MOST];
        float most;
        memcpy(&most, &bits, 4);
        largest[k] = most;
    }
}

/* Past the caches: copies that are too large to stay there are not to push out what is in them. */
#define LARGE (1 << 20)
#ifdef __SSE__
#define PUT(to, v) put(to, v)
static void put(float *to, V v) {
    float t[16];
    memcpy(t, &v, 64);
    for (int k = 0; k < 16; k += 4) _mm_stream_ps(to + k, _mm_loadu_ps(t + k));
}
#else
#define PUT(to, v) (*(V *)(to) = (v))
#endif

/* Part of a tensor: copies it; the sum of its squares. */
static void keep_part(const Work *work, int64_t start, int64_t end, double *found) {
    const float *x = work->x;
    float *copy = work->copy;
    int large = work->large && (uintptr_t)copy % 16 == 0; /* the sum must not depend on where */
    for (; start < end; start += BLOCK) {
        int64_t i = start, stop = start + BLOCK < end ? start + BLOCK : end;
        float rest = 0;
        EACH(ZERO)
        for (V v; i + 64 <= stop; i += 64) {
            FETCH(x, i, end);
#define ADD(k) v = AT(x + i + 16 * k), s##k += v * v; \
    if (large) PUT(copy + i + 16 * k, v); \
    else *(V *)(copy + i + 16 * k) = v;
            EACH(ADD)
#undef ADD
        }
        for (; i < stop; i++) copy[i] = x[i], rest += x[i] * x[i];
        found[0] += total_of((s0 + s1) + (s2 + s3)) + rest;
    }
#ifdef __SSE__
    if (large) _mm_sfence();
#endif
}

/* Keeps copies of the tensors, and their norms. */
void inspector_keep(int64_t count, const float **x, const int64_t *n, float *copies,
                    double *norm) {
    for (int64_t k = 0; k < count; copies += n[k++]) {
        double found[RESULTS];
        share_out(keep_part, &(Work){.x = x[k], .copy = copies, .large = n[k] >= LARGE}, n[k],
                  found);
        norm[k] = sqrt(is_exact(found[0]) ? found[0] : squares_in_double(copies, n[k]));
    }
}

/* Part of a tensor and its copy: the sums of the squares of the change, and of the tensor. */
static void compare_part(const Work *work, int64_t start, int64_t end, double *found) {
    for (; start < end; start += BLOCK) {
        const float *now = work->x + start, *then = work->copy + start;
        int64_t i = 0, length = start + BLOCK < end ? BLOCK : end - start;
        EACH(ZERO)
#define MORE(k) V d##k = {0};
        EACH(MORE)
#undef MORE
        for (V v, d; i + 64 <= length; i += 64) {
            FETCH(now, i, end - start);
            FETCH(then, i, end - start);
#define ADD(k) v = AT(now + i + 16 * k), d = v - AT(then + i + 16 * k), s##k += v * v, d##k += d * d;
            EACH(ADD)
#undef ADD
        }
        double moved = total_of((d0 + d1) + (d2 + d3)), total = total_of((s0 + s1) + (s2 + s3));
        for (; i < length; i++) {
            float w = now[i], d = w - then[i];
            moved += d * d;
            total += w * w;
        }
        int unmoved = moved == 0 && is_exact(total) && !memcmp(now, then, length * 4);
        if (!unmoved && !(is_exact(moved) && is_exact(total))) {
            moved = total = 0;
            for (i = 0; i < length; i++) {
                double w = now[i], d = w - then[i];
                moved += d * d;
                total += w * w;
            }
        }
        found[0] += moved;
        found[1] += total;
    }
}

/* Norms of the change since the copies were made, and of the tensors now. */
void inspector_compare(int64_t count, const float **x, const int64_t *n, const float *copies,
                       double *change, double *after) {
    for (int64_t k = 0; k < count; copies += n[k++]) {
        double found[RESULTS];
        share_out(compare_part, &(Work){.x = x[k], .copy = (float *)copies}, n[k], found);
        change[k] = sqrt(found[0]);
        after[k] = sqrt(found[1]);
    }
}

/* Joins the calls of each module. rows: n × (column, count, sum, variance, zeros, saturated,
   non-finite, 1); gradients: g × (column, norm); work: 8 × m. out: 6 × m, in the order
   mean, std, zeros, saturated, non-finite, output gradient; absent (a float's bits) where there is
   none. Answers the non-finite total. */
double inspector_modules(const double *rows, int64_t n, const double *gradients, int64_t g,
                         double scale, int64_t m, double *work, float *out, uint32_t absent) {
    double *count = work, *sum = work + m, *within = work + 2 * m, *squares = work + 3 * m;
    double *zeros = work + 4 * m, *outside = work + 5 * m, *bad = work + 6 * m, *grad = work + 7 * m;
    double found = 0;
    memset(work, 0, sizeof(double) * 7 * m);
    for (int64_t k = 0; k < m; k++) grad[k] = -1;
    for (const double *r = rows; r < rows + 8 * n; r += 8) {
        int64_t k = (int64_t)r[0];
        count[k] += r[1];
        sum[k] += r[2];
        within[k] += r[3] * r[1];
        squares[k] += r[2] * r[2] / r[1];
        zeros[k] += r[4];
        outside[k] += r[5];
        bad[k] += r[6];
    }
    for (const double *r = gradients; r < gradients + 2 * g; r += 2) {
        int64_t k = (int64_t)r[0];
        grad[k] = (grad[k] < 0 ? 0 : grad[k]) + r[1] * r[1];
    }
    for (int64_t k = 0; k < m; k++) {
        double mean = sum[k] / count[k], between = squares[k] - sum[k] * mean;
        double variance = (within[k] + (between > 0 ? between : 0)) / count[k];
        out[k] = (float)mean;
        out[m + k] = bad[k] ? NAN : (float)sqrt(variance);
        out[2 * m + k] = (float)(zeros[k] / count[k]);
        out[3 * m + k] = (float)(outside[k] / count[k]);
        out[4 * m + k] = (float)bad[k];
        out[5 * m + k] = (float)(sqrt(grad[k]) / scale);
        if (!(count[k] > 0))
            for (int q = 0; q < 5; q++) memcpy(out + q * m + k, &absent, 4);
        if (grad[k] < 0) memcpy(out + 5 * m + k, &absent, 4);
        found += bad[k];
    }
    return found;
}

/* cells: 7 × p of norm, largest, non-finite, received, before, change, after; negative where there
   is none. out: 6 × p of norm, largest, non-finite, received, after, change / before.
   totals: L2 norms of all norms, received, before and change, or -1; non-finite values. */
void inspector_parameters(const double *cells, int64_t p, double scale, double received_scale,
                          float *out, double *totals, uint32_t absent) {
    static const int source[4] = {0, 3, 4, 5};
    static const int order[5] = {0, 1, 2, 3, 6};
    double by[5] = {scale, scale, 1, received_scale, 1};
    for (int t = 0; t < 4; t++) {
        const double *c = cells + source[t] * p;
        double total = 0;
        int any = 0;
        for (int64_t k = 0; k < p; k++)
            if (c[k] != -1) {
                total += c[k] * c[k];
                any = 1;
            }
        totals[t] = any ? sqrt(total) : -1;
    }
    totals[4] = 0;
    for (int64_t k = 0; k < p; k++) totals[4] += cells[2 * p + k] == -1 ? 0 : cells[2 * p + k];
    for (int q = 0; q < 5; q++)
        for (int64_t k = 0; k < p; k++) {
            double value = cells[order[q] * p + k];
            out[q * p + k] = (float)(value / by[q]);
            if (value == -1) memcpy(out + q * p + k, &absent, 4);
        }
    for (int64_t k = 0; k < p; k++) {
        double before = cells[4 * p + k], change = cells[5 * p + k];
        out[5 * p + k] = (float)(change / before);
        if (before == -1 || change == -1 || before == 0) memcpy(out + 5 * p + k, &absent, 4);
    }
}

#define PARTS 32
#define PART 2048

static uint64_t mixed(uint64_t sum, uint64_t with) {
    sum = (sum ^ with) * 0x9e3779b97f4a7c15u;
    return sum ^ sum >> 29;
}

/* A checksum that tells batches apart: of all bytes, or of parts from all over them. */
uint64_t inspector_checksum(const unsigned char *bytes, int64_t n) {
    uint64_t sums[4] = {1, 2, 3, 4}, words[4] = {0};
    int64_t parts = n > PARTS * PART ? PARTS : 1, length = parts > 1 ? PART : n;
    for (int64_t p = 0; p < parts; p++) {
        const unsigned char *from = bytes + (parts > 1 ? (n - PART) / (PARTS - 1) * p : 0);
        int64_t i = 0;
        for (; i + 32 <= length; i += 32) {
            memcpy(words, from + i, 32);
            for (int k = 0; k < 4; k++) sums[k] = mixed(sums[k], words[k]);
        }
        memset(words, 0, sizeof words);
        memcpy(words, from + i, length - i);
        for (int k = 0; k < 4; k++) sums[k] = mixed(sums[k], words[k]);
    }
    return mixed(mixed(sums[0], sums[1]), mixed(sums[2], sums[3])) ^ (uint64_t)n;
}
