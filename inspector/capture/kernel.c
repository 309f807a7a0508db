/* One pass over memory for the statistics of a tensor, where PyTorch needs one pass for each.

   Plain C over addresses and sizes: it knows nothing of PyTorch or Python, so that one build
   serves every version. Tensors are dense float32 on the CPU. Sums are kept in float over short
   blocks and in double beyond, and taken again in double where squares overflow or cancel. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define BLOCK 2048

typedef struct { double sum, squares, most; } Sums;

static int64_t count_nonfinite(const float *x, int64_t n) {
    int64_t found = 0;
    for (int64_t i = 0; i < n; i++) found += !(fabsf(x[i]) <= 3.4028235e38f);
    return found;
}

static double squares_of(const float *x, int64_t n) {
    double total = 0;
    for (int64_t start = 0; start < n; start += BLOCK) {
        int64_t stop = start + BLOCK < n ? start + BLOCK : n;
        float s = 0;
        for (int64_t i = start; i < stop; i++) s += x[i] * x[i];
        total += s;
    }
    if (isfinite(total) && total > 1e-30) return total;
    total = 0;
    for (int64_t i = 0; i < n; i++) total += (double)x[i] * x[i];
    return total;
}

/* Sum and sum of squares of x - shift. */
static Sums around(const float *x, int64_t n, double shift) {
    Sums t = {0, 0, 0};
    float by = (float)shift;
    for (int64_t start = 0; start < n; start += BLOCK) {
        int64_t stop = start + BLOCK < n ? start + BLOCK : n;
        float s = 0, q = 0;
        for (int64_t i = start; i < stop; i++) {
            float d = x[i] - by;
            s += d;
            q += d * d;
        }
        t.sum += s;
        t.squares += q;
    }
    return t;
}

static Sums around_double(const float *x, int64_t n, double shift) {
    Sums t = {0, 0, 0};
    for (int64_t i = 0; i < n; i++) {
        double d = x[i] - shift;
        t.sum += d;
        t.squares += d * d;
    }
    return t;
}

/* out: sum, variance, zeros, saturated, non-finite */
void inspector_output(const float *x, int64_t n, double low, double high, int bounded,
                      double *out) {
    float shift = isfinite(x[0]) ? x[0] : 0;
    Sums t = around(x, n, shift);
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
    int64_t zeros = 0, outside = 0;
    for (int64_t i = 0; i < n; i++) zeros += x[i] == 0;
    if (bounded) {
        float a = (float)low, b = (float)high;
        for (int64_t i = 0; i < n; i++) outside += (x[i] < a) | (x[i] > b);
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

void inspector_gradients(int64_t count, const float **x, const int64_t *n, double *norm,
                         double *largest, double *nonfinite) {
    for (int64_t k = 0; k < count; k++) {
        const float *g = x[k];
        double total = 0;
        float most = 0;
        for (int64_t start = 0; start < n[k]; start += BLOCK) {
            int64_t stop = start + BLOCK < n[k] ? start + BLOCK : n[k];
            float s = 0;
            for (int64_t i = start; i < stop; i++) {
                float a = fabsf(g[i]);
                s += a * a;
                most = a > most ? a : most;
            }
            total += s;
        }
        int64_t bad = 0;
        if (!isfinite(total) || total < 1e-30) {
            total = squares_of(g, n[k]);
            bad = count_nonfinite(g, n[k]);
        }
        norm[k] = sqrt(total);
        largest[k] = total != total ? total : most;
        nonfinite[k] = (double)bad;
    }
}

/* Keeps copies of the tensors, and their norms. */
void inspector_keep(int64_t count, const float **x, const int64_t *n, float *copies,
                    double *norm) {
    for (int64_t k = 0; k < count; k++) {
        double total = 0;
        for (int64_t start = 0; start < n[k]; start += BLOCK) {
            int64_t stop = start + BLOCK < n[k] ? start + BLOCK : n[k];
            float s = 0;
            for (int64_t i = start; i < stop; i++) {
                float w = x[k][i];
                copies[i] = w;
                s += w * w;
            }
            total += s;
        }
        if (!isfinite(total) || total < 1e-30) total = squares_of(x[k], n[k]);
        norm[k] = sqrt(total);
        copies += n[k];
    }
}

/* Norms of the change since the copies were made, and of the tensors now. */
void inspector_compare(int64_t count, const float **x, const int64_t *n, float *copies,
                       double *change, double *after) {
    for (int64_t k = 0; k < count; k++) {
        double moved = 0, total = 0;
        for (int64_t start = 0; start < n[k]; start += BLOCK) {
            int64_t stop = start + BLOCK < n[k] ? start + BLOCK : n[k];
            float c = 0, s = 0;
            for (int64_t i = start; i < stop; i++) {
                float w = x[k][i], d = w - copies[i];
                c += d * d;
                s += w * w;
            }
            moved += c;
            total += s;
        }
        if (!isfinite(moved) || moved < 1e-30) {
            moved = 0;
            for (int64_t i = 0; i < n[k]; i++) {
                double d = (double)x[k][i] - copies[i];
                moved += d * d;
            }
        }
        if (!isfinite(total) || total < 1e-30) total = squares_of(x[k], n[k]);
        change[k] = sqrt(moved);
        after[k] = sqrt(total);
        copies += n[k];
    }
}
