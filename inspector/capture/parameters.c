/* What is measured of the parameters of an optimizer. Included by native.c.

   Each function takes a tuple of parameters and addresses of float64 rows, one number for each
   parameter, and answers whether it could read every tensor; if not, the rows are not to be
   used. */

/* A gradient on its way to be measured: owned, or NULL where there is none. */
typedef struct {
    PyObject *tensor;
    const float *x;
    int64_t n;
} Coming;

/* The gradient of a parameter, if any, and its first numbers called for; 0 if it cannot be read. */
static int call_for(PyObject *parameter, Coming *coming) {
    PyObject *g = PyObject_GetAttr(parameter, s_grad);
    coming->tensor = NULL;
    if (!g) PyErr_Clear();
    if (g == Py_None) {
        Py_DECREF(g);
        return 1;
    }
    if (!g || !readable(g, &coming->x, &coming->n)) {
        Py_XDECREF(g);
        return 0;
    }
    coming->tensor = g;
    inspector_call_for(coming->x, coming->n);
    return 1;
}

/* Norms of the gradients into a row, -1 where there is none; with more rows largest values and
   non-finite counts too. Whether all could be read. Each is on its way from memory while the one
   before it is measured. */
static int measure_gradients(PyObject *parameters, double *norm, double *largest, double *bad) {
    Py_ssize_t count = PyTuple_GET_SIZE(parameters);
    Coming now = {0}, coming = {0};
    int good = !count || call_for(PyTuple_GET_ITEM(parameters, 0), &coming);
    for (Py_ssize_t k = 0; good && k < count; k++) {
        now = coming;
        coming.tensor = NULL;
        if (k + 1 < count) good = call_for(PyTuple_GET_ITEM(parameters, k + 1), &coming);
        if (!now.tensor) {
            norm[k] = -1;
            if (largest) largest[k] = bad[k] = -1;
        } else if (largest)
            inspector_gradients(1, &now.x, &now.n, norm + k, largest + k, bad + k);
        else
            norm[k] = inspector_norm(now.x, now.n);
        Py_XDECREF(now.tensor);
    }
    Py_XDECREF(coming.tensor);
    return good;
}

/* Copies the parameters and measures their norms, or compares them with their copies. Whether all
   could be read, and are as large as they were. */
static int walk(PyObject *parameters, const int64_t *sizes, float *copies, double *before,
                double *change, double *after) {
    const float *now = NULL, *coming;
    for (Py_ssize_t k = 0; k <= PyTuple_GET_SIZE(parameters); k++) {
        int64_t n;
        if (k < PyTuple_GET_SIZE(parameters)) { /* on its way while the one before it is read */
            if (!readable(PyTuple_GET_ITEM(parameters, k), &coming, &n) || n != sizes[k]) return 0;
            inspector_call_for(coming, n);
            if (k && !before) inspector_call_for(copies + sizes[k - 1], n);
        }
        if (k && before)
            inspector_keep(1, &now, sizes + k - 1, copies, before + k - 1);
        else if (k)
            inspector_compare(1, &now, sizes + k - 1, copies, change + k - 1, after + k - 1);
        if (k) copies += sizes[k - 1];
        now = coming;
    }
    return 1;
}

/* gradients(parameters, norm, largest, nonfinite): see measure_gradients(). With largest 0 only
   norms. */
static PyObject *gradients(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    if (count != 4 || !PyTuple_Check(args[0])) return PyErr_Format(PyExc_TypeError, "4 arguments");
    double *norm = PyLong_AsVoidPtr(args[1]), *largest = PyLong_AsVoidPtr(args[2]);
    double *bad = PyLong_AsVoidPtr(args[3]);
    if (PyErr_Occurred()) return NULL;
    return PyBool_FromLong(measure_gradients(args[0], norm, largest, bad));
}

/* keep(parameters, sizes, copies, before) */
static PyObject *keep(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    if (count != 4 || !PyTuple_Check(args[0])) return PyErr_Format(PyExc_TypeError, "4 arguments");
    int64_t *sizes = PyLong_AsVoidPtr(args[1]);
    float *copies = PyLong_AsVoidPtr(args[2]);
    double *before = PyLong_AsVoidPtr(args[3]);
    if (PyErr_Occurred()) return NULL;
    return PyBool_FromLong(walk(args[0], sizes, copies, before, NULL, NULL));
}

/* compare(parameters, sizes, copies, change, after) */
static PyObject *compare(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    if (count != 5 || !PyTuple_Check(args[0])) return PyErr_Format(PyExc_TypeError, "5 arguments");
    int64_t *sizes = PyLong_AsVoidPtr(args[1]);
    float *copies = PyLong_AsVoidPtr(args[2]);
    double *change = PyLong_AsVoidPtr(args[3]), *after = PyLong_AsVoidPtr(args[4]);
    if (PyErr_Occurred()) return NULL;
    return PyBool_FromLong(walk(args[0], sizes, copies, NULL, change, after));
}

/* reduce(cells, parameters, scale, received_scale, out): inspector_parameters(). */
static PyObject *reduce(PyObject *module, PyObject *args) {
    (void)module;
    double scale, received_scale, totals[5];
    long long parameters;
    unsigned long long cells, out;
    if (!PyArg_ParseTuple(args, "KLddK", &cells, &parameters, &scale, &received_scale, &out))
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
