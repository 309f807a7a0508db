/* The parts of capturing that run in every hook, in C, so that a hook costs less than Python's
   call of it. Needs Python's headers and nothing of PyTorch: tensors are asked by their methods.
   hooks.py and parameters' Python code does the same where this cannot be built. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <time.h>

#include "kernel.c"

/* What setup() was given: types and functions of PyTorch. */
static PyObject *tensor_type, *parameter_type, *float32, *strided, *channels_last, *ordered_dict;
static PyObject *grad_enabled, *task_id, *transformed, *minus_one;

#define NAMES(X) X(dtype) X(is_cpu) X(layout) X(is_contiguous) X(is_neg) X(data_ptr) X(numel) \
    X(grad_fn) X(_backward_hooks) X(_register_hook_dict) X(register_hook) X(training) X(grad) \
    X(memory_format) X(dim) X(_version)
#define DECLARE(name) static PyObject *s_##name;
NAMES(DECLARE)

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

static int64_t number(PyObject *found) {
    int64_t value = found ? PyLong_AsLongLong(found) : -1;
    Py_XDECREF(found);
    if (PyErr_Occurred()) {
        PyErr_Clear();
        return -1;
    }
    return value;
}

static int dense(PyObject *t) {
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
    if (!is_object(PyObject_GetAttr(t, s_dtype), float32)) return 0;
    if (!is_object(PyObject_GetAttr(t, s_is_cpu), Py_True)) return 0;
    if (!is_object(PyObject_GetAttr(t, s_layout), strided)) return 0;
    if (!dense(t) || !is_object(PyObject_CallMethodNoArgs(t, s_is_neg), Py_False)) return 0;
    *n = number(PyObject_CallMethodNoArgs(t, s_numel));
    *x = (const float *)(intptr_t)number(PyObject_CallMethodNoArgs(t, s_data_ptr));
    return *n == 0 || (*n > 0 && *x && *x != (const float *)-1);
}

/* ------------------------------------------------------------ tape: what hooks write down */

typedef struct {
    PyObject_HEAD
    double *rows, *norms;
    int64_t count, room, norm_count, norm_room;
    long long forward_ns, gradient_ns, forward_calls, gradient_calls, phase;
    int open, listening, waiting, announced;
    PyObject *model, *on_forward, *on_gradient;
} Tape;

static int tape_init(Tape *self, PyObject *args, PyObject *kwargs) {
    (void)kwargs;
    PyObject *model, *on_forward, *on_gradient;
    if (!PyArg_ParseTuple(args, "OOO", &model, &on_forward, &on_gradient)) return -1;
    Py_XSETREF(self->model, Py_NewRef(model));
    Py_XSETREF(self->on_forward, Py_NewRef(on_forward));
    Py_XSETREF(self->on_gradient, Py_NewRef(on_gradient));
    return 0;
}

static int tape_traverse(Tape *self, visitproc visit, void *arg) {
    Py_VISIT(self->model);
    Py_VISIT(self->on_forward);
    Py_VISIT(self->on_gradient);
    return 0;
}

static int tape_clear(Tape *self) {
    Py_CLEAR(self->model);
    Py_CLEAR(self->on_forward);
    Py_CLEAR(self->on_gradient);
    return 0;
}

static void tape_free(Tape *self) {
    PyObject_GC_UnTrack(self);
    tape_clear(self);
    free(self->rows);
    free(self->norms);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static double *next(double **block, int64_t *count, int64_t *room, int width) {
    if (*count == *room) {
        int64_t more = *room ? *room * 2 : 64;
        double *larger = realloc(*block, sizeof(double) * width * more);
        if (!larger) return NULL;
        *block = larger;
        *room = more;
    }
    return *block + width * (*count)++;
}

static PyObject *tape_take_rows(Tape *self, PyObject *none) {
    (void)none;
    PyObject *taken = PyBytes_FromStringAndSize((char *)self->rows, self->count * 64);
    self->count = 0;
    return taken;
}

static PyObject *tape_take_norms(Tape *self, PyObject *none) {
    (void)none;
    PyObject *taken = PyBytes_FromStringAndSize((char *)self->norms, self->norm_count * 16);
    self->norm_count = 0;
    return taken;
}

/* keep(first, last, first_norm, last_norm): forgets what lies outside. */
static PyObject *tape_keep(Tape *self, PyObject *args) {
    long long a, b, c, d;
    if (!PyArg_ParseTuple(args, "LLLL", &a, &b, &c, &d)) return NULL;
    b = b < self->count ? b : self->count;
    d = d < self->norm_count ? d : self->norm_count;
    self->count = a < b ? b - a : 0;
    self->norm_count = c < d ? d - c : 0;
    if (self->count && a) memmove(self->rows, self->rows + 8 * a, self->count * 64);
    if (self->norm_count && c) memmove(self->norms, self->norms + 2 * c, self->norm_count * 16);
    Py_RETURN_NONE;
}

/* add(eight numbers): one more row, measured elsewhere. */
static PyObject *tape_add(Tape *self, PyObject *args) {
    double *row = next(&self->rows, &self->count, &self->room, 8);
    if (!row) return PyErr_NoMemory();
    if (!PyArg_ParseTuple(args, "dddddddd", row, row + 1, row + 2, row + 3, row + 4, row + 5,
                          row + 6, row + 7)) {
        self->count--;
        return NULL;
    }
    Py_RETURN_NONE;
}

/* reduce(scale, modules, work, out, absent): joins the rows of each module as
   inspector_modules() does, and forgets them. Answers the non-finite total, and column and count
   of the first row that has some. */
static PyObject *tape_reduce(Tape *self, PyObject *args) {
    double scale, column = -1, found = 0;
    long long modules;
    unsigned long long work, out;
    unsigned int absent;
    if (!PyArg_ParseTuple(args, "dLKKI", &scale, &modules, &work, &out, &absent)) return NULL;
    double total = inspector_modules(self->rows, self->count, self->norms, self->norm_count,
                                     scale, modules, (double *)(intptr_t)work,
                                     (float *)(intptr_t)out, absent);
    for (int64_t k = self->count - 1; total > 0 && k >= 0; k--)
        if (self->rows[8 * k + 6] > 0) {
            column = self->rows[8 * k];
            found = self->rows[8 * k + 6];
        }
    self->count = self->norm_count = 0;
    return Py_BuildValue("ddd", total, column, found);
}

static PyMethodDef tape_methods[] = {
    {"reduce", (PyCFunction)tape_reduce, METH_VARARGS, NULL},
    {"add", (PyCFunction)tape_add, METH_VARARGS, NULL},
    {"take_rows", (PyCFunction)tape_take_rows, METH_NOARGS, NULL},
    {"take_norms", (PyCFunction)tape_take_norms, METH_NOARGS, NULL},
    {"keep", (PyCFunction)tape_keep, METH_VARARGS, NULL},
    {NULL}};

static PyMemberDef tape_members[] = {
    {"count", T_LONGLONG, offsetof(Tape, count), READONLY, NULL},
    {"norm_count", T_LONGLONG, offsetof(Tape, norm_count), READONLY, NULL},
    {"forward_ns", T_LONGLONG, offsetof(Tape, forward_ns), 0, NULL},
    {"gradient_ns", T_LONGLONG, offsetof(Tape, gradient_ns), 0, NULL},
    {"forward_calls", T_LONGLONG, offsetof(Tape, forward_calls), 0, NULL},
    {"gradient_calls", T_LONGLONG, offsetof(Tape, gradient_calls), 0, NULL},
    {"phase", T_LONGLONG, offsetof(Tape, phase), 0, NULL},
    {"open", T_INT, offsetof(Tape, open), 0, NULL},
    {"listening", T_INT, offsetof(Tape, listening), 0, NULL},
    {"waiting", T_INT, offsetof(Tape, waiting), 0, NULL},
    {"announced", T_INT, offsetof(Tape, announced), 0, NULL},
    {NULL}};

static PyTypeObject TapeType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "inspector_native.Tape",
    .tp_doc = "Tape(weakref of the model, on_forward, on_gradient)",
    .tp_basicsize = sizeof(Tape),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)tape_init,
    .tp_traverse = (traverseproc)tape_traverse,
    .tp_clear = (inquiry)tape_clear,
    .tp_dealloc = (destructor)tape_free,
    .tp_methods = tape_methods,
    .tp_members = tape_members,
};

/* ------------------------------------------------------------ site: one module's hooks */

typedef struct {
    PyObject_HEAD
    Tape *tape;
    PyObject *slow, *slow_gradient;
    double low, high;
    long long column, phase;
    int bounded, dead, known;
} Site;

static int site_init(Site *self, PyObject *args, PyObject *kwargs) {
    (void)kwargs;
    PyObject *tape, *slow, *slow_gradient;
    if (!PyArg_ParseTuple(args, "O!OO", &TapeType, &tape, &slow, &slow_gradient)) return -1;
    Py_XSETREF(self->tape, (Tape *)Py_NewRef(tape));
    Py_XSETREF(self->slow, Py_NewRef(slow));
    Py_XSETREF(self->slow_gradient, Py_NewRef(slow_gradient));
    self->column = self->phase = -1;
    return 0;
}

static int site_traverse(Site *self, visitproc visit, void *arg) {
    Py_VISIT(self->tape);
    Py_VISIT(self->slow);
    Py_VISIT(self->slow_gradient);
    return 0;
}

static int site_clear(Site *self) {
    Py_CLEAR(self->tape);
    Py_CLEAR(self->slow);
    Py_CLEAR(self->slow_gradient);
    return 0;
}

static void site_free(Site *self) {
    PyObject_GC_UnTrack(self);
    site_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static int training(Tape *tape) {
    PyObject *model = PyWeakref_GetObject(tape->model);
    return model && is_object(PyObject_GetAttr(model, s_training), Py_True);
}

/* The gradient of the module's output has arrived. */
static PyObject *site_receive(Site *self, PyObject *gradient) {
    Tape *tape = self->tape;
    if (self->dead || !tape) Py_RETURN_NONE;
    int64_t began = now();
    const float *x;
    int64_t n;
    if (is_object(PyObject_CallNoArgs(grad_enabled), Py_True) || /* create_graph differentiates */
        !is_object(PyObject_CallNoArgs(transformed), Py_None))
        Py_RETURN_NONE;
    if (!tape->announced) {
        PyObject *answer = PyObject_CallNoArgs(tape->on_gradient);
        if (!answer) return NULL;
        Py_DECREF(answer);
        tape->announced = 1;
    }
    if (tape->listening && self->column >= 0) {
        if (readable(gradient, &x, &n)) {
            double *pair = next(&tape->norms, &tape->norm_count, &tape->norm_room, 2);
            if (!pair) return PyErr_NoMemory();
            pair[0] = (double)self->column;
            pair[1] = inspector_norm(x, n);
        } else {
            PyObject *answer =
                PyObject_CallFunction(self->slow_gradient, "LO", self->column, gradient);
            if (!answer) return NULL;
            Py_DECREF(answer);
        }
    }
    tape->gradient_ns += now() - began;
    tape->gradient_calls++;
    Py_RETURN_NONE;
}

static PyMethodDef receive = {"receive", (PyCFunction)site_receive, METH_O, NULL};

/* tensor.register_hook(self.receive) without the handle, which costs more than the hook. */
static int listen(Site *self, PyObject *tensor) {
    PyObject *maker = PyObject_GetAttr(tensor, s_grad_fn);
    if (!maker) return -1;
    int result = -1;
    PyObject *hook = NULL, *hooks = NULL, *answer = NULL;
    if (maker == Py_None) {
        result = 0;
    } else if ((hook = PyCFunction_New(&receive, (PyObject *)self)) &&
               (hooks = PyObject_GetAttr(tensor, s__backward_hooks))) {
        if (hooks != Py_None)
            answer = PyObject_CallMethodOneArg(tensor, s_register_hook, hook);
        else {
            Py_SETREF(hooks, PyObject_CallNoArgs(ordered_dict));
            if (hooks && PyObject_SetItem(hooks, minus_one, hook) == 0 &&
                PyObject_SetAttr(tensor, s__backward_hooks, hooks) == 0)
                answer = PyObject_CallMethodOneArg(maker, s__register_hook_dict, tensor);
        }
        result = answer ? 0 : -1;
    }
    Py_XDECREF(answer);
    Py_XDECREF(hooks);
    Py_XDECREF(hook);
    Py_DECREF(maker);
    return result;
}

/* Whether a hook of ours is on the tensor already. */
static int heard(PyObject *tensor) {
    PyObject *hooks = PyObject_GetAttr(tensor, s__backward_hooks);
    int found = 0;
    if (hooks && PyDict_Check(hooks)) found = PyDict_Contains(hooks, minus_one) > 0;
    Py_XDECREF(hooks);
    PyErr_Clear();
    return found;
}

static int ordinary(Tape *tape, PyObject *output) {
    return (PyObject *)Py_TYPE(output) == tensor_type &&
           number(PyObject_CallNoArgs(task_id)) == -1 && /* not recomputed by a checkpoint */
           is_object(PyObject_CallNoArgs(transformed), Py_None) && training(tape);
}

/* measure(args, output): the module was called. What is not ordinary goes to Python. */
static PyObject *site_measure(Site *self, PyObject *const *args, Py_ssize_t count) {
    Tape *tape = self->tape;
    if (self->dead || !tape || count != 2) Py_RETURN_NONE;
    if (!is_object(PyObject_CallNoArgs(grad_enabled), Py_True)) Py_RETURN_NONE;
    int64_t began = now();
    const float *x = NULL;
    int64_t n = 0;
    PyObject *output = args[1];
    if (!self->known || !tape->open || !ordinary(tape, output) ||
        (self->column >= 0 && (!readable(output, &x, &n) || !n)))
        return PyObject_Vectorcall(self->slow, args, 2, NULL);
    if (tape->waiting) {
        tape->waiting = 0;
        PyObject *answer = PyObject_CallNoArgs(tape->on_forward);
        if (!answer) return NULL;
        Py_DECREF(answer);
    }
    self->phase = tape->phase;
    if (self->column >= 0) {
        double *row = next(&tape->rows, &tape->count, &tape->room, 8);
        if (!row) return PyErr_NoMemory();
        inspector_output(x, n, self->low, self->high, self->bounded, (double)self->column, row);
    }
    if ((self->column >= 0 || !heard(output)) && listen(self, output) < 0) return NULL;
    tape->forward_ns += now() - began;
    tape->forward_calls++;
    Py_RETURN_NONE;
}

static PyMethodDef site_methods[] = {
    {"measure", (PyCFunction)(void (*)(void))site_measure, METH_FASTCALL, NULL},
    {"receive", (PyCFunction)site_receive, METH_O, NULL},
    {NULL}};

static PyMemberDef site_members[] = {
    {"column", T_LONGLONG, offsetof(Site, column), 0, NULL},
    {"phase", T_LONGLONG, offsetof(Site, phase), 0, NULL},
    {"low", T_DOUBLE, offsetof(Site, low), 0, NULL},
    {"high", T_DOUBLE, offsetof(Site, high), 0, NULL},
    {"bounded", T_INT, offsetof(Site, bounded), 0, NULL},
    {"known", T_INT, offsetof(Site, known), 0, NULL},
    {"dead", T_INT, offsetof(Site, dead), 0, NULL},
    {NULL}};

static PyTypeObject SiteType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "inspector_native.Site",
    .tp_doc = "Site(tape, slow(args, output), slow_gradient(column, gradient))",
    .tp_basicsize = sizeof(Site),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)site_init,
    .tp_traverse = (traverseproc)site_traverse,
    .tp_clear = (inquiry)site_clear,
    .tp_dealloc = (destructor)site_free,
    .tp_methods = site_methods,
    .tp_members = site_members,
};

/* ------------------------------------------------------------ parameters

   Each function takes a tuple of parameters and addresses of float64 rows, one number for each
   parameter, and answers whether it could read every tensor; if not, the rows are not to be
   used. */

/* gradients(parameters, norm, largest, nonfinite): -1 where there is no gradient. With largest 0
   only norms. */
static PyObject *gradients(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    if (count != 4 || !PyTuple_Check(args[0])) return PyErr_Format(PyExc_TypeError, "4 arguments");
    double *norm = PyLong_AsVoidPtr(args[1]), *largest = PyLong_AsVoidPtr(args[2]);
    double *bad = PyLong_AsVoidPtr(args[3]);
    if (PyErr_Occurred()) return NULL;
    for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(args[0]); k++) {
        PyObject *g = PyObject_GetAttr(PyTuple_GET_ITEM(args[0], k), s_grad);
        const float *x;
        int64_t n;
        if (!g) return NULL;
        if (g == Py_None) {
            norm[k] = -1;
            if (largest) largest[k] = bad[k] = -1;
        } else if (!readable(g, &x, &n)) {
            Py_DECREF(g);
            Py_RETURN_FALSE;
        } else if (largest)
            inspector_gradients(1, &x, &n, norm + k, largest + k, bad + k);
        else
            norm[k] = inspector_norm(x, n);
        Py_DECREF(g);
    }
    Py_RETURN_TRUE;
}

static PyObject *walk(PyObject *const *args, Py_ssize_t count, int compare) {
    if (count != 5 || !PyTuple_Check(args[0])) return PyErr_Format(PyExc_TypeError, "5 arguments");
    int64_t *sizes = PyLong_AsVoidPtr(args[1]);
    float *copies = PyLong_AsVoidPtr(args[2]);
    double *first = PyLong_AsVoidPtr(args[3]), *second = PyLong_AsVoidPtr(args[4]);
    if (PyErr_Occurred()) return NULL;
    for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(args[0]); k++) {
        const float *x;
        int64_t n;
        if (!readable(PyTuple_GET_ITEM(args[0], k), &x, &n) || n != sizes[k]) Py_RETURN_FALSE;
        if (compare)
            inspector_compare(1, &x, &n, copies, first + k, second + k);
        else
            inspector_keep(1, &x, &n, copies, first + k);
        copies += n;
    }
    Py_RETURN_TRUE;
}

/* keep(parameters, sizes, copies, before, 0) */
static PyObject *keep(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    return walk(args, count, 0);
}

/* compare(parameters, sizes, copies, change, after) */
static PyObject *compare(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    return walk(args, count, 1);
}

/* reduce(cells, parameters, scale, received_scale, out, absent): inspector_parameters(). */
static PyObject *reduce(PyObject *module, PyObject *args) {
    (void)module;
    double scale, received_scale, totals[5];
    long long parameters;
    unsigned long long cells, out;
    unsigned int absent;
    if (!PyArg_ParseTuple(args, "KLddKI", &cells, &parameters, &scale, &received_scale, &out,
                          &absent))
        return NULL;
    inspector_parameters((double *)(intptr_t)cells, parameters, scale, received_scale,
                         (float *)(intptr_t)out, totals, absent);
    return Py_BuildValue("ddddd", totals[0], totals[1], totals[2], totals[3], totals[4]);
}

/* states(parameters): identity and version of each gradient, in one tuple. */
static PyObject *states(PyObject *module, PyObject *parameters) {
    (void)module;
    Py_ssize_t count = PyTuple_Check(parameters) ? PyTuple_GET_SIZE(parameters) : 0;
    PyObject *result = PyTuple_New(2 * count);
    for (Py_ssize_t k = 0; result && k < count; k++) {
        PyObject *g = PyObject_GetAttr(PyTuple_GET_ITEM(parameters, k), s_grad);
        PyObject *version = g && g != Py_None ? PyObject_GetAttr(g, s__version) : Py_NewRef(Py_None);
        PyObject *identity = PyLong_FromVoidPtr(g);
        Py_XDECREF(g);
        if (!g || !version || !identity) {
            Py_XDECREF(version);
            Py_XDECREF(identity);
            Py_CLEAR(result);
            break;
        }
        PyTuple_SET_ITEM(result, 2 * k, identity);
        PyTuple_SET_ITEM(result, 2 * k + 1, version);
    }
    return result;
}

/* all_finite(tensors): whether every value is; None where some cannot be read here. */
static PyObject *all_finite(PyObject *module, PyObject *tensors) {
    (void)module;
    Py_ssize_t count = PyTuple_Check(tensors) ? PyTuple_GET_SIZE(tensors) : 0;
    for (Py_ssize_t k = 0; k < count; k++) {
        const float *x;
        int64_t n;
        if (!readable(PyTuple_GET_ITEM(tensors, k), &x, &n)) Py_RETURN_NONE;
        if (!inspector_finite(x, n)) Py_RETURN_FALSE;
    }
    Py_RETURN_TRUE;
}

/* fingerprint(parameters): a sum over some blocks of each gradient; None where one cannot be read.
   With states() it tells whether gradients have changed, without reading all of them. */
static PyObject *fingerprint(PyObject *module, PyObject *parameters) {
    (void)module;
    Py_ssize_t count = PyTuple_Check(parameters) ? PyTuple_GET_SIZE(parameters) : 0;
    double total = 0;
    for (Py_ssize_t k = 0; k < count; k++) {
        PyObject *g = PyObject_GetAttr(PyTuple_GET_ITEM(parameters, k), s_grad);
        const float *x;
        int64_t n;
        if (!g) return NULL;
        int there = g != Py_None, fits = there && readable(g, &x, &n);
        Py_DECREF(g);
        if (there && !fits) Py_RETURN_NONE;
        for (int64_t start = 0; there && start < n; start += 16 * BLOCK)
            total += (k + 1) * squares_of(x + start, n - start < BLOCK ? n - start : BLOCK);
    }
    return PyFloat_FromDouble(total);
}

static PyObject *setup(PyObject *module, PyObject *args) {
    (void)module;
    if (!PyArg_ParseTuple(args, "OOOOOOOOO", &tensor_type, &parameter_type, &float32, &strided,
                          &channels_last, &ordered_dict, &grad_enabled, &task_id, &transformed))
        return NULL;
    PyObject *all[] = {tensor_type, parameter_type, float32, strided, channels_last,
                       ordered_dict, grad_enabled, task_id, transformed};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) Py_INCREF(all[k]);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"reduce", reduce, METH_VARARGS, NULL},
    {"states", states, METH_O, NULL},
    {"fingerprint", fingerprint, METH_O, NULL},
    {"all_finite", all_finite, METH_O, NULL},
    {"setup", setup, METH_VARARGS, NULL},
    {"gradients", (PyCFunction)(void (*)(void))gradients, METH_FASTCALL, NULL},
    {"keep", (PyCFunction)(void (*)(void))keep, METH_FASTCALL, NULL},
    {"compare", (PyCFunction)(void (*)(void))compare, METH_FASTCALL, NULL},
    {NULL}};

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "inspector_native",
                                 .m_size = -1, .m_methods = functions};

PyMODINIT_FUNC PyInit_inspector_native(void) {
#define INTERN(name) \
    if (!(s_##name = PyUnicode_InternFromString(#name))) return NULL;
    NAMES(INTERN)
    if (!(minus_one = PyLong_FromLong(-1))) return NULL;
    PyObject *module = PyModule_Create(&definition);
    if (!module || PyModule_AddType(module, &TapeType) < 0 ||
        PyModule_AddType(module, &SiteType) < 0)
        return NULL;
    return module;
}
