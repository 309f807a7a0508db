/* One pass over memory for the statistics of a tensor, where PyTorch needs one pass for each.

   Plain C over addresses and sizes: it knows nothing of PyTorch or Python, so that one build
   serves every version. Tensors are dense float32 on the CPU. Sums are kept in float over short
   blocks and in double beyond, and taken again in double where squares overflow or cancel. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 4096

/* Sixteen numbers at a time, from any address; compilers split them where registers are shorter. */
typedef float V __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t I __attribute__((vector_size(64), aligned(4), may_alias));
#define AT(x) (*(const V *)(x))
#define EACH(X) X(0) X(1) X(2) X(3)

typedef struct {
    double sum, squares;
    int64_t zeros;
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

/* The sum of squares of one block: inexact where it is not finite, or tiny. */
static double block_squares(const float *x, int64_t n) {
#define ZERO(k) V s##k = {0};
#define ADD(k) v = AT(x + i + 16 * k), s##k += v * v;
    EACH(ZERO)
    int64_t i = 0;
    for (V v; i + 64 <= n; i += 64) { EACH(ADD) }
    float rest = 0;
    for (; i < n; i++) rest += x[i] * x[i];
    return total_of((s0 + s1) + (s2 + s3)) + rest;
#undef ADD
}

static double squares_of(const float *x, int64_t n) {
    double total = 0;
    for (int64_t start = 0; start < n; start += BLOCK)
        total += block_squares(x + start, n - start < BLOCK ? n - start : BLOCK);
    if (isfinite(total) && total > 1e-30) return total;
    total = 0;
    for (int64_t i = 0; i < n; i++) total += (double)x[i] * x[i];
    return total;
}

/* A finite sum of squares has finite terms; only where it is not is a second look needed. */
int inspector_finite(const float *x, int64_t n) {
    double total = 0;
    for (int64_t start = 0; start < n; start += BLOCK)
        total += block_squares(x + start, n - start < BLOCK ? n - start : BLOCK);
    return isfinite(total) || !count_nonfinite(x, n);
}

/* Sum and sum of squares of x - shift, and zeros, in one pass. */
static Sums around(const float *x, int64_t n, double shift) {
    Sums t = {0, 0, 0};
    V by = (V){0} + (float)shift;
    for (int64_t start = 0; start < n; start += BLOCK) {
        int64_t i = start, stop = start + BLOCK < n ? start + BLOCK : n;
        EACH(ZERO)
#define MORE(k) V q##k = {0}; I z##k = {0};
        EACH(MORE)
#undef MORE
        for (V v; i + 64 <= stop; i += 64) {
#define ADD(k) v = AT(x + i + 16 * k), z##k -= v == 0.0f, v -= by, s##k += v, q##k += v * v;
            EACH(ADD)
#undef ADD
        }
        t.sum += total_of((s0 + s1) + (s2 + s3));
        t.squares += total_of((q0 + q1) + (q2 + q3));
        t.zeros += count_of((z0 + z1) + (z2 + z3));
        for (; i < stop; i++) {
            float d = x[i] - (float)shift;
            t.sum += d;
            t.squares += d * d;
            t.zeros += x[i] == 0;
        }
    }
    return t;
}

static int64_t count_outside(const float *x, int64_t n, float low, float high) {
    int64_t found = 0;
    for (int64_t start = 0; start < n; start += BLOCK) {
        int64_t stop = start + BLOCK < n ? start + BLOCK : n;
        int32_t outside = 0;
        for (int64_t i = start; i < stop; i++) outside += (x[i] < low) | (x[i] > high);
        found += outside;
    }
    return found;
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

/* row: column, count, sum, variance, zeros, saturated, non-finite, 1 */
void inspector_output(const float *x, int64_t n, double low, double high, int bounded,
                      double column, double *row) {
    double *out = row + 2;
    row[0] = column;
    row[1] = (double)n;
    row[7] = 1;
    float shift = isfinite(x[0]) ? x[0] : 0;
    Sums t = around(x, n, shift);
    int64_t zeros = t.zeros;
    int64_t outside = bounded ? count_outside(x, n, (float)low, (float)high) : 0;
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

void inspector_gradients(int64_t count, const float **x, const int64_t *n, double *norm,
                         double *largest, double *nonfinite) {
    for (int64_t k = 0; k < count; k++) {
        const float *g = x[k];
        double total = 0;
        int32_t most = 0; /* as bits: they order like the numbers, NaN above infinity */
        for (int64_t start = 0; start < n[k]; start += BLOCK) {
            int64_t i = start, stop = start + BLOCK < n[k] ? start + BLOCK : n[k];
            EACH(ZERO)
#define MORE(k) I m##k = {0};
            EACH(MORE)
#undef MORE
            for (V v; i + 64 <= stop; i += 64) {
#define ADD(k) v = AT(g + i + 16 * k), s##k += v * v, m##k = larger(m##k, (I)v & 0x7fffffff);
                EACH(ADD)
#undef ADD
            }
            total += total_of((s0 + s1) + (s2 + s3));
            m0 = larger(larger(m0, m1), larger(m2, m3));
            for (int j = 0; j < 16; j++) most = m0[j] > most ? m0[j] : most;
            for (; i < stop; i++) {
                int32_t bits;
                memcpy(&bits, g + i, 4);
                bits &= 0x7fffffff;
                total += g[i] * g[i];
                most = bits > most ? bits : most;
            }
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
            memcpy(copies, w, length * sizeof(float));
            double s = block_squares(w, length);
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
            EACH(ZERO)
#define MORE(k) V d##k = {0};
            EACH(MORE)
#undef MORE
            int64_t i = 0;
            for (V v, d; i + 64 <= length; i += 64) {
#define ADD(k) v = AT(now + i + 16 * k), d = v - AT(copies + i + 16 * k), s##k += v * v, d##k += d * d;
                EACH(ADD)
#undef ADD
            }
            double c = total_of((d0 + d1) + (d2 + d3)), s = total_of((s0 + s1) + (s2 + s3));
            for (; i < length; i++) {
                float w = now[i], d = w - copies[i];
                c += d * d;
                s += w * w;
            }
            if (c == 0 && isfinite(s) && s > 1e-30 && !memcmp(now, copies, length * 4)) {
                total += s;
            } else if (!isfinite(c) || c < 1e-30 || !isfinite(s) || s < 1e-30) {
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
