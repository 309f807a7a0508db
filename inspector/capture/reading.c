/* Where the numbers of a tensor lie in memory. Included by native.c. */

#include <time.h>

/* What setup() was given: types and functions of PyTorch. */
static PyObject *tensor_type, *parameter_type, *float32, *strided, *channels_last, *ordered_dict;
static PyObject *grad_enabled, *task_id, *transformed, *minus_one, *minus_two;
static unsigned int absent;    /* bits of a float32 that stands for no number */
static long long dispatch_ns; /* PyTorch's own cost of calling a hook */

#define NAMES(X) X(dtype) X(is_cpu) X(layout) X(is_contiguous) X(is_neg) X(data_ptr) X(numel) \
    X(grad_fn) X(_backward_hooks) X(_register_hook_dict) X(register_hook) X(training) X(grad) \
    X(memory_format) X(dim) X(_version) X(param_groups) X(lr) X(momentum) X(betas) X(weight_decay) \
    X(zero_grad) X(params) X(requires_grad) X(receive) X(grad_scale) X(found_inf)
#define DECLARE(name) static PyObject *s_##name;
NAMES(DECLARE)

/* DLPack 1: what a tensor lends out for the moment, and the table of functions that PyTorch gives
   to C code. Both are fixed for all versions with this major number. */
typedef struct {
    void *data;
    int32_t device_type, device_id, ndim;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} Borrowed;

typedef struct {
    uint32_t major, minor;
    void *older, *allocate, *take, *give;
    int (*borrow)(void *tensor, Borrowed *out);
} Exchange;

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define UPPER 0
#else
#define UPPER 2
#endif

static int (*borrow)(void *tensor, Borrowed *out);

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Whether an attribute (or the answer of a method) is this very object; errors count as no. */
static int is_object(PyObject *found, PyObject *wanted) {
    if (!found) PyErr_Clear();
    Py_XDECREF(found);
    return found == wanted;
}

/* Whether the script goes on after a call of ours: an error in it is told and is none of the
   script's, what interrupts the script is. */
static int survived(PyObject *answer) {
    if (!answer && PyErr_ExceptionMatches(PyExc_Exception)) PyErr_WriteUnraisable(NULL);
    Py_XDECREF(answer);
    return answer || !PyErr_Occurred();
}

static int64_t number(PyObject *found) {
    int64_t value = found ? PyLong_AsLongLong(found) : -1;
    Py_XDECREF(found);
    if (PyErr_Occurred()) {
        PyErr_Clear();
        return -1;
    }
    return value;
}

static int64_t elements(const Borrowed *t) {
    int64_t n = 1;
    for (int d = 0; d < t->ndim; d++) n *= t->shape[d];
    return n;
}

/* Whether strides, in elements, describe one block of memory without gaps or overlaps. */
static int dense(const Borrowed *t) {
    int64_t wanted = 1;
    int k = t->ndim;
    if (!t->strides) return 1;
    for (; k > 0 && (t->shape[k - 1] == 1 || t->strides[k - 1] == wanted); k--)
        wanted *= t->shape[k - 1];
    for (int found = 1; k > 0 && found;) { /* another order of the dimensions that are left */
        found = 0;
        for (int d = 0; d < t->ndim; d++)
            if (t->shape[d] > 1 && t->strides[d] == wanted) {
                wanted *= t->shape[d];
                found = 1;
            }
    }
    return wanted == elements(t);
}

/* What a tensor on the CPU lends by PyTorch's own C interface for the exchange of tensors (DLPack),
   with the address of its first number as data; 0 for any other. */
static int lent(PyObject *t, Borrowed *b) {
    if (!borrow || borrow(t, b) != 0) {
        PyErr_Clear();
        return 0;
    }
    if (b->data) b->data = (char *)b->data + b->byte_offset;
    return b->device_type == 1;
}

static int is_single(const Borrowed *t) { return t->code == 2 && t->bits == 32 && t->lanes == 1; }

static int borrowed(PyObject *t, const float **x, int64_t *n) {
    Borrowed b;
    if (!lent(t, &b) || !is_single(&b)) return 0;
    *n = elements(&b);
    *x = b.data;
    if (*n > 1) return dense(&b) && b.data;
    /* Negation that waits lives in strided views only, which are dense with one number. */
    return *n == 0 || is_object(PyObject_CallMethodNoArgs(t, s_is_neg), Py_False);
}

static int contiguous(PyObject *t) {
    if (is_object(PyObject_CallMethodNoArgs(t, s_is_contiguous), Py_True)) return 1;
    if (number(PyObject_CallMethodNoArgs(t, s_dim)) != 4) return 0;
    PyObject *names = PyTuple_Pack(1, s_memory_format), *arguments[2] = {t, channels_last};
    PyObject *answer =
        names ? PyObject_VectorcallMethod(s_is_contiguous, arguments, 1, names) : NULL;
    Py_XDECREF(names);
    return is_object(answer, Py_True);
}

/* Address and size of a plain dense float32 tensor on the CPU; 0 for any other. */
static int readable(PyObject *t, const float **x, int64_t *n) {
    PyObject *type = (PyObject *)Py_TYPE(t);
    if (type != tensor_type && type != parameter_type) return 0;
    if (borrow) return borrowed(t, x, n);
    if (!is_object(PyObject_GetAttr(t, s_dtype), float32)) return 0;
    if (!is_object(PyObject_GetAttr(t, s_is_cpu), Py_True)) return 0;
    if (!is_object(PyObject_GetAttr(t, s_layout), strided)) return 0;
    if (!contiguous(t) || !is_object(PyObject_CallMethodNoArgs(t, s_is_neg), Py_False)) return 0;
    *n = number(PyObject_CallMethodNoArgs(t, s_numel));
    *x = (const float *)(intptr_t)number(PyObject_CallMethodNoArgs(t, s_data_ptr));
    return *n == 0 || (*n > 0 && *x && *x != (const float *)-1);
}

/* Address and size of a float32 tensor on the CPU that shows one number n times, as the gradient
   of a sum or a mean does; 0 for any other. */
static int repeated(PyObject *t, const float **x, int64_t *n) {
    Borrowed b;
    if ((PyObject *)Py_TYPE(t) != tensor_type || !lent(t, &b)) return 0;
    if (!is_single(&b) || !b.strides || !b.data) return 0;
    for (int d = 0; d < b.ndim; d++)
        if (b.shape[d] > 1 && b.strides[d]) return 0;
    *n = elements(&b);
    *x = b.data;
    return *n > 0;
}

/* The value of a real tensor of one element on the CPU; 0 for any other. */
static int item(PyObject *t, double *found) {
    Borrowed b;
    if ((PyObject *)Py_TYPE(t) != tensor_type) return 0;
    if (!borrow) {
        const float *x;
        int64_t n;
        if (!readable(t, &x, &n) || n != 1) return 0;
        *found = *x;
        return 1;
    }
    if (!lent(t, &b) || elements(&b) != 1 || b.lanes != 1 || !b.data) return 0;
    float single = 0;
    if (b.code == 2 && b.bits == 64)
        memcpy(found, b.data, 8);
    else if (is_single(&b))
        memcpy(&single, b.data, 4);
    else if (b.code == 4 && b.bits == 16) /* bfloat16: the upper half of a float */
        memcpy((char *)&single + UPPER, b.data, 2);
    else
        return 0;
    if (b.bits < 64) *found = single;
    return is_object(PyObject_CallMethodNoArgs(t, s_is_neg), Py_False);
}

/* A checksum of a dense tensor on the CPU; 0 of any other. */
static uint64_t checksum_of(PyObject *t) {
    Borrowed b;
    if ((PyObject *)Py_TYPE(t) != tensor_type || !lent(t, &b)) return 0;
    if (!b.data || !dense(&b)) return 0;
    return inspector_checksum(b.data, elements(&b) * b.bits * b.lanes / 8);
}

/* Whether two tensors on the CPU hold the same bytes in the same order. */
static int alike_bytes(PyObject *one, PyObject *other) {
    Borrowed a, b;
    if ((PyObject *)Py_TYPE(one) != tensor_type || (PyObject *)Py_TYPE(other) != tensor_type ||
        !lent(one, &a) || !lent(other, &b))
        return 0;
    int fits = a.ndim == 1 && b.ndim == 1 && a.bits == b.bits && a.shape[0] == b.shape[0] &&
               a.data && b.data && (!a.strides || a.strides[0] == 1) &&
               (!b.strides || b.strides[0] == 1);
    return fits && !memcmp(a.data, b.data, (size_t)a.shape[0] * a.bits / 8);
}
