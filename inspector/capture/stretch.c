/* A stretch of steps that Python has nothing to do with: from one boundary that it attends to the
   next, each step's few numbers are written down here, and those of modules and parameters by a
   Full if there is one. Included by native.c; observer.py says when a stretch may begin. */

#define EXTRAS 16
#define ROOM 512
#define NOWHERE (-1.7976931348623157e308) /* no number */

enum { LOSS, WALL, OWN, PASSES, LR, MOMENTUM, DECAY, TOTAL, CLIPPED_TOTAL, CLIPPED, RATIO, BAD,
       FIRST_EXTRA, WIDTH = FIRST_EXTRA + EXTRAS };

typedef struct {
    PyObject_HEAD
    PyObject *witness, *others, *names[EXTRAS];
    double row[WIDTH], rows[ROOM][WIDTH];
    long long step, until, deadline, last, own, count, extras, passes, usual;
    Full *full; /* measures the steps fully; NULL in quiet ones */
    int open, alarm, late;
    int calm; /* the witness wants to know of losses that are not finite only */
} Stretch;

static void blank(double *row) {
    for (int k = 0; k < WIDTH; k++) row[k] = NOWHERE;
}

/* Stretch(): counts the steps; its StepHooks hang on the optimizers. */
static int stretch_init(Stretch *self, PyObject *args, PyObject *kwargs) {
    (void)args;
    (void)kwargs;
    Py_XSETREF(self->witness, Py_NewRef(Py_None));
    blank(self->row);
    return 0;
}

static int stretch_traverse(Stretch *self, visitproc visit, void *arg) {
    Py_VISIT(self->witness);
    Py_VISIT(self->others);
    Py_VISIT(self->full);
    return 0;
}

static int stretch_clear(Stretch *self) {
    Py_CLEAR(self->witness);
    Py_CLEAR(self->others);
    Py_CLEAR(self->full);
    for (int k = 0; k < EXTRAS; k++) Py_CLEAR(self->names[k]);
    self->open = 0;
    return 0;
}

static void stretch_free(Stretch *self) {
    PyObject_GC_UnTrack(self);
    stretch_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

/* A number whose value is at hand: float, int, or a tensor of one element on the CPU. */
static int plain(PyObject *value, double *found) {
    if (PyFloat_CheckExact(value)) {
        *found = PyFloat_AS_DOUBLE(value);
    } else if (PyLong_CheckExact(value)) {
        *found = PyLong_AsDouble(value);
    } else if (!item(value, found)) {
        return 0;
    }
    if (PyErr_Occurred()) {
        PyErr_Clear();
        return 0;
    }
    return 1;
}

static int column_of(Stretch *self, PyObject *name) {
    for (int k = 0; k < self->extras; k++)
        if (self->names[k] == name || PyUnicode_Compare(self->names[k], name) == 0) return k;
    if (self->extras == EXTRAS) return -1;
    self->names[self->extras] = Py_NewRef(name);
    return (int)self->extras++;
}

/* take(loss, others): whether the numbers that the script records are taken here. */
static PyObject *stretch_take(Stretch *self, PyObject *const *args, Py_ssize_t count) {
    if (!self->open || count != 2 || !PyDict_CheckExact(args[1])) Py_RETURN_FALSE;
    double *row = self->row, found[1 + EXTRAS];
    int columns[1 + EXTRAS], size = 0;
    PyObject *name, *value;
    Py_ssize_t at = 0;
    if (self->late && self->count && self->rows[self->count - 1][LOSS] == NOWHERE &&
        !(self->full && self->full->tape->count)) /* a forward pass begins the next step */
        row = self->rows[self->count - 1];
    if (args[0] != Py_None) {
        if (!plain(args[0], found)) Py_RETURN_FALSE;
        columns[size++] = LOSS;
    }
    while (PyDict_Next(args[1], &at, &name, &value)) {
        int column = size <= EXTRAS ? column_of(self, name) : -1;
        if (column < 0 || !plain(value, found + size)) Py_RETURN_FALSE;
        columns[size++] = FIRST_EXTRA + column;
    }
    for (int k = 0; k < size; k++) row[columns[k]] = found[k];
    if (!isfinite(row[LOSS])) self->alarm = 1;
    if (self->witness != Py_None && args[0] != Py_None && !(self->calm && isfinite(row[LOSS]))) {
        PyObject *seen = PyFloat_FromDouble(row[LOSS]), *witness = Py_NewRef(self->witness);
        PyObject *answer =
            seen ? PyObject_CallFunctionObjArgs(witness, args[0], seen, NULL) : NULL;
        Py_DECREF(witness);
        Py_XDECREF(seen);
        if (!survived(answer)) return NULL;
    }
    Py_RETURN_TRUE;
}

static int entry(PyObject *group, PyObject *name, double *found) {
    PyObject *value = PyDict_GetItemWithError(group, name);
    return !value || value == Py_None || plain(value, found);
}

/* A parameter group, or NULL. */
static PyObject *group_of(PyObject *optimizer, Py_ssize_t number) {
    PyObject *groups = PyObject_GetAttr(optimizer, s_param_groups), *group = NULL;
    if (groups && PyList_CheckExact(groups) && number < PyList_GET_SIZE(groups) &&
        PyDict_CheckExact(PyList_GET_ITEM(groups, number)))
        group = Py_NewRef(PyList_GET_ITEM(groups, number));
    Py_XDECREF(groups);
    PyErr_Clear();
    return group;
}

/* What the optimizer steps with: its first group. */
static int rates(PyObject *optimizer, double *row) {
    PyObject *group = group_of(optimizer, 0), *betas;
    int found = group && entry(group, s_lr, row + LR) && entry(group, s_weight_decay, row + DECAY);
    if (found && PyDict_Contains(group, s_momentum) == 1)
        found = entry(group, s_momentum, row + MOMENTUM);
    else if (found && (betas = PyDict_GetItemWithError(group, s_betas)))
        found = PyTuple_CheckExact(betas) && PyTuple_GET_SIZE(betas) &&
                plain(PyTuple_GET_ITEM(betas, 0), row + MOMENTUM);
    Py_XDECREF(group);
    PyErr_Clear();
    return found;
}

/* The learning rates of all other groups, beside what is recorded. */
static int rates_of_others(Stretch *self, double *row) {
    PyObject *others = Py_XNewRef(self->others); /* tuples (weakref, number, name) */
    int found = 1;
    for (Py_ssize_t k = 0; others && found && k < PyTuple_GET_SIZE(others); k++) {
        PyObject *place = PyTuple_GET_ITEM(others, k);
        PyObject *optimizer = Py_NewRef(PyWeakref_GetObject(PyTuple_GET_ITEM(place, 0)));
        PyObject *group = group_of(optimizer, PyLong_AsSsize_t(PyTuple_GET_ITEM(place, 1)));
        int column = column_of(self, PyTuple_GET_ITEM(place, 2));
        double rate = NOWHERE;
        found = group && column >= 0 && entry(group, s_lr, &rate);
        if (found && row[FIRST_EXTRA + column] == NOWHERE) row[FIRST_EXTRA + column] = rate;
        Py_XDECREF(group);
        Py_DECREF(optimizer);
    }
    Py_XDECREF(others);
    PyErr_Clear();
    return found;
}

/* The totals of a fully measured step; whether it was an ordinary one. */
static int measured(Stretch *self, double *row) {
    double totals[5]; /* of gradients, as received, weights before, change; non-finite values */
    Full *full = (Full *)Py_NewRef(self->full); /* whatever runs meanwhile */
    int done = full_after(full, totals);
    Py_DECREF(full);
    if (!done || !self->open) return 0;
    if (totals[0] != -1) row[TOTAL] = totals[0];
    if (totals[1] != -1) row[CLIPPED_TOTAL] = totals[1];
    if (totals[0] != -1 && totals[1] != -1) row[CLIPPED] = totals[0] > totals[1] * (1 + 1e-5);
    if (totals[2] > 0 && totals[3] != -1) row[RATIO] = totals[3] / totals[2];
    row[BAD] = 0;
    return 1;
}

/* The step is over: whether it has been written down. */
static int stretch_step(Stretch *self, PyObject *optimizer) {
    int64_t t = now();
    double *row = self->row;
    int known = self->late ? !self->count || self->rows[self->count - 1][LOSS] != NOWHERE
                           : isfinite(row[LOSS]) && row[LOSS] != NOWHERE;
    if (!known || self->alarm || self->step + 1 >= self->until || t >= self->deadline ||
        self->count == ROOM || !rates(optimizer, row) ||
        (self->others && !rates_of_others(self, row)) || (self->full && !measured(self, row))) {
        row[LR] = row[MOMENTUM] = row[DECAY] = NOWHERE;
        return 0;
    }
    row[PASSES] = (double)(self->full ? self->full->passes : (self->passes += self->usual));
    row[WALL] = (t - self->last) * 1e-9;
    self->last = t;
    self->step++;
    row[OWN] = (self->own + (self->full ? full_own(self->full) : now() - t)) * 1e-9;
    self->own = 0;
    memcpy(self->rows[self->count++], row, sizeof self->row);
    blank(row);
    return 1;
}

/* begin(until, nanoseconds, last, full, others): the coming steps are quiet, or measured by ``full``
   if that is not None; at most for so long. The last boundary was at ``last``. ``others`` are the
   groups besides the first whose rates are noted: weak reference of the optimizer, number, name. */
static PyObject *stretch_begin(Stretch *self, PyObject *args) {
    long long until, most;
    PyObject *full, *others;
    if (!PyArg_ParseTuple(args, "LLLOO!", &until, &most, &self->last, &full, &PyTuple_Type, &others))
        return NULL;
    if (full != Py_None && Py_TYPE(full) != &FullType)
        return PyErr_Format(PyExc_TypeError, "not a Full");
    Py_XSETREF(self->others, PyTuple_GET_SIZE(others) ? Py_NewRef(others) : NULL);
    Py_XSETREF(self->full, full == Py_None ? NULL : (Full *)Py_NewRef(full));
    self->until = until;
    self->deadline = now() + most;
    self->open = 1;
    Py_RETURN_NONE;
}

/* end(): closes; gives the rows, those of the step that runs, the names of what is recorded
   besides the loss, and the nanoseconds since the last boundary. */
static PyObject *stretch_end(Stretch *self, PyObject *none) {
    (void)none;
    PyObject *names = PyTuple_New(self->extras);
    for (int k = 0; names && k < self->extras; k++)
        PyTuple_SET_ITEM(names, k, Py_NewRef(self->names[k]));
    if (!names) return NULL;
    PyObject *taken = Py_BuildValue(
        "y#y#NL", (char *)self->rows, (Py_ssize_t)(self->count * sizeof self->row),
        (char *)self->row, (Py_ssize_t)sizeof self->row, names, now() - self->last);
    Py_CLEAR(self->full);
    self->open = 0;
    self->count = 0;
    blank(self->row);
    return taken;
}

static PyMethodDef stretch_methods[] = {
    {"take", (PyCFunction)(void (*)(void))stretch_take, METH_FASTCALL, NULL},
    {"begin", (PyCFunction)stretch_begin, METH_VARARGS, NULL},
    {"end", (PyCFunction)stretch_end, METH_NOARGS, NULL},
    {NULL}};

static PyMemberDef stretch_members[] = {
    {"step", T_LONGLONG, offsetof(Stretch, step), 0, NULL},
    {"own", T_LONGLONG, offsetof(Stretch, own), 0, NULL},
    {"passes", T_LONGLONG, offsetof(Stretch, passes), 0, NULL},
    {"usual", T_LONGLONG, offsetof(Stretch, usual), 0, NULL},
    {"open", T_INT, offsetof(Stretch, open), READONLY, NULL},
    {"alarm", T_INT, offsetof(Stretch, alarm), 0, NULL},
    {"late", T_INT, offsetof(Stretch, late), 0, NULL},
    {"calm", T_INT, offsetof(Stretch, calm), 0, NULL},
    {"witness", T_OBJECT_EX, offsetof(Stretch, witness), 0, NULL},
    {NULL}};

static PyTypeObject StretchType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "inspector_native.Stretch",
    .tp_doc = "Counts the steps, and writes down those that Python does not attend",
    .tp_basicsize = sizeof(Stretch),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)stretch_init,
    .tp_traverse = (traverseproc)stretch_traverse,
    .tp_clear = (inquiry)stretch_clear,
    .tp_dealloc = (destructor)stretch_free,
    .tp_methods = stretch_methods,
    .tp_members = stretch_members,
};
