/* One pass over memory for the statistics of a tensor, where PyTorch needs one pass for each.

   Plain C over addresses and sizes: it knows nothing of PyTorch or Python, so that one build
   serves every version. Tensors are dense float32 on the CPU. Sums are kept in float over short
   blocks and in double beyond, and taken again in double where squares overflow or cancel. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 2048

typedef struct {
    double sum, squares;
    int64_t zeros, outside;
} Sums;

static int64_t count_nonfinite(const float *x, int64_t n) {
    int64_t found = 0;
    for (int64_t i = 0; i < n; i++) found += !(fabsf(x[i]) <= 3.4028235e38f);
    return found;
}

int inspector_finite(const float *x, int64_t n) {
    for (int64_t start = 0; start < n; start += BLOCK) {
        int64_t stop = start + BLOCK < n ? start + BLOCK : n;
        int32_t most = 0; /* as bits: they order like the numbers, NaN above infinity */
        for (int64_t i = start; i < stop; i++) {
            int32_t bits;
            memcpy(&bits, x + i, 4);
            bits &= 0x7fffffff;
            most = bits > most ? bits : most;
        }
        if (most >= 0x7f800000) return 0;
    }
    return 1;
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

/* Sum and sum of squares of x - shift, zeros, and values outside the bounds, in one pass. */
static Sums around(const float *x, int64_t n, double shift, float low, float high) {
    Sums t = {0, 0, 0, 0};
    float by = (float)shift;
    for (int64_t start = 0; start < n; start += BLOCK) {
        int64_t stop = start + BLOCK < n ? start + BLOCK : n;
        float s = 0, q = 0;
        int32_t zeros = 0, outside = 0;
        for (int64_t i = start; i < stop; i++) {
            float v = x[i], d = v - by;
            s += d;
            q += d * d;
            zeros += v == 0;
            outside += (v < low) | (v > high);
        }
        t.sum += s;
        t.squares += q;
        t.zeros += zeros;
        t.outside += outside;
    }
    return t;
}

static Sums around_double(const float *x, int64_t n, double shift) {
    Sums t = {0, 0, 0, 0};
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
    Sums t = bounded ? around(x, n, shift, (float)low, (float)high)
                     : around(x, n, shift, -INFINITY, INFINITY);
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

void inspector_gradients(int64_t count, const float **x, const int64_t *n, double *norm,
                         double *largest, double *nonfinite) {
    for (int64_t k = 0; k < count; k++) {
        const float *g = x[k];
        double total = 0;
        int32_t most = 0; /* as bits: they order like the numbers, NaN above infinity */
        for (int64_t start = 0; start < n[k]; start += BLOCK) {
            int64_t stop = start + BLOCK < n[k] ? start + BLOCK : n[k];
            float s = 0;
            for (int64_t i = start; i < stop; i++) {
                int32_t bits;
                memcpy(&bits, g + i, 4);
                bits &= 0x7fffffff;
                s += g[i] * g[i];
                most = bits > most ? bits : most;
            }
            total += s;
        }
        int64_t bad = 0;
        if (!isfinite(total) || total < 1e-30) {
            total = squares_of(g, n[k]);
            bad = count_nonfinite(g, n[k]);
        }
        norm[k] = sqrt(total);
        float found;
        memcpy(&found, &most, 4);
        largest[k] = found;
        nonfinite[k] = (double)bad;
    }
}

/* Keeps copies of the tensors, and their norms. */
void inspector_keep(int64_t count, const float **x, const int64_t *n, float *copies,
                    double *norm) {
    for (int64_t k = 0; k < count; k++) {
        double total = 0;
        const float *from = copies;
        for (int64_t start = 0; start < n[k]; start += BLOCK) {
            int64_t length = start + BLOCK < n[k] ? BLOCK : n[k] - start;
            const float *w = x[k] + start;
            float s = 0;
            for (int64_t i = 0; i < length; i++) {
                copies[i] = w[i];
                s += w[i] * w[i];
            }
            copies += length;
            total += s;
        }
        if (!isfinite(total) || total < 1e-30) total = squares_of(from, n[k]);
        norm[k] = sqrt(total);
    }
}

/* Norms of the change since the copies were made, and of the tensors now. */
void inspector_compare(int64_t count, const float **x, const int64_t *n, const float *copies,
                       double *change, double *after) {
    for (int64_t k = 0; k < count; k++) {
        double moved = 0, total = 0;
        for (int64_t start = 0; start < n[k]; start += BLOCK) {
            int64_t length = start + BLOCK < n[k] ? BLOCK : n[k] - start;
            const float *now = x[k] + start;
            float c = 0, s = 0;
            for (int64_t i = 0; i < length; i++) {
                float w = now[i], d = w - copies[i];
                c += d * d;
                s += w * w;
            }
            if (!isfinite(c) || c < 1e-30f || !isfinite(s) || s < 1e-30f) {
                double exact = 0, square = 0;
                for (int64_t i = 0; i < length; i++) {
                    double w = now[i], d = w - copies[i];
                    exact += d * d;
                    square += w * w;
                }
                moved += exact;
                total += square;
            } else {
                moved += c;
                total += s;
            }
            copies += length;
        }
        change[k] = sqrt(moved);
        after[k] = sqrt(total);
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
