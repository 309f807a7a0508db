/* The parts of capturing that run in every hook, in C, so that a hook costs less than Python's
   call of it. Needs Python's headers and nothing of PyTorch: tensors are read through DLPack's C
   interface, or asked by their methods. Python code does the same where this cannot be built. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include "kernel.c"
#include "reading.c"
#include "stretch.c"
#include "tape.c"

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

static PyObject *walk(PyObject *const *args, Py_ssize_t count, int keeping) {
    if (count != 5 || !PyTuple_Check(args[0])) return PyErr_Format(PyExc_TypeError, "5 arguments");
    int64_t *sizes = PyLong_AsVoidPtr(args[1]);
    float *copies = PyLong_AsVoidPtr(args[2]);
    double *first = PyLong_AsVoidPtr(args[3]), *second = PyLong_AsVoidPtr(args[4]);
    if (PyErr_Occurred()) return NULL;
    for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(args[0]); k++) {
        const float *x;
        int64_t n;
        if (!readable(PyTuple_GET_ITEM(args[0], k), &x, &n) || n != sizes[k]) Py_RETURN_FALSE;
        if (keeping)
            inspector_keep(1, &x, &n, copies, first + k);
        else
            inspector_compare(1, &x, &n, copies, first + k, second + k);
        copies += n;
    }
    Py_RETURN_TRUE;
}

/* keep(parameters, sizes, copies, before, 0) */
static PyObject *keep(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    return walk(args, count, 1);
}

/* compare(parameters, sizes, copies, change, after) */
static PyObject *compare(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    return walk(args, count, 0);
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

/* finite_gradients(optimizer): whether every gradient it would step with is wholly finite; None
   where some cannot be read here. */
static PyObject *finite_gradients(PyObject *module, PyObject *optimizer) {
    (void)module;
    int finite = 1;
    PyObject *groups = PyObject_GetAttr(optimizer, s_param_groups);
    if (!groups || !PyList_CheckExact(groups)) finite = -1;
    for (Py_ssize_t i = 0; finite > 0 && i < PyList_GET_SIZE(groups); i++) {
        PyObject *group = PyList_GET_ITEM(groups, i);
        PyObject *all = PyDict_CheckExact(group) ? PyDict_GetItem(group, s_params) : NULL;
        if (!all || !PyList_CheckExact(all)) finite = -1;
        for (Py_ssize_t k = 0; finite > 0 && k < PyList_GET_SIZE(all); k++) {
            PyObject *g = PyObject_GetAttr(PyList_GET_ITEM(all, k), s_grad);
            const float *x;
            int64_t n;
            if (!g)
                finite = -1;
            else if (g != Py_None)
                finite = readable(g, &x, &n) ? inspector_finite(x, n) : -1;
            Py_XDECREF(g);
        }
    }
    Py_XDECREF(groups);
    PyErr_Clear();
    if (finite < 0) Py_RETURN_NONE;
    return PyBool_FromLong(finite);
}

/* identical(a, b): whether two tensors on the CPU hold the same bytes in the same order. */
static PyObject *identical(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    if (count != 2) Py_RETURN_FALSE;
    return PyBool_FromLong(alike_bytes(args[0], args[1]));
}

#include "logbook.c"

static PyObject *setup(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *capsule;
    if (!PyArg_ParseTuple(args, "OOOOOOOOOO", &tensor_type, &parameter_type, &float32, &strided,
                          &channels_last, &ordered_dict, &grad_enabled, &task_id, &transformed,
                          &capsule))
        return NULL;
    if (PyCapsule_IsValid(capsule, "dlpack_exchange_api")) {
        const Exchange *table = PyCapsule_GetPointer(capsule, "dlpack_exchange_api");
        if (table->major == 1) borrow = table->borrow;
    }
    PyObject *all[] = {tensor_type, parameter_type, float32, strided, channels_last,
                       ordered_dict, grad_enabled, task_id, transformed};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) Py_INCREF(all[k]);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"reduce", reduce, METH_VARARGS, NULL},
    {"states", states, METH_O, NULL},
    {"identical", (PyCFunction)(void (*)(void))identical, METH_FASTCALL, NULL},
    {"finite_gradients", finite_gradients, METH_O, NULL},
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
    if (!(minus_one = PyLong_FromLong(-1)) || !(minus_two = PyLong_FromLong(-2))) return NULL;
    PyObject *module = PyModule_Create(&definition);
    if (!module || PyModule_AddType(module, &TapeType) < 0 ||
        PyModule_AddType(module, &SiteType) < 0 || PyModule_AddType(module, &StretchType) < 0 ||
        PyModule_AddType(module, &LogbookType) < 0)
        return NULL;
    return module;
}
