/* Fully measured steps of the ordinary kind, of which Python has nothing to do: everything on the
   CPU, one optimizer, no clipping, no loss scale, no histograms. What turns out otherwise goes to
   Python, which first takes over what is known of the step. Included by native.c; see
   full_steps.py. */

#define REFERENCES 16

enum { NORM, LARGEST, NONFINITE, RECEIVED, BEFORE, CHANGE, AFTER };
enum { BY_FORWARD, BY_GRADIENTS, BY_UPDATES, BY_STEP, PROBES };

typedef struct {
    PyObject_HEAD
    Tape *tape;
    PyObject *parameters, *references, *queue, *end; /* end(): Python's end of a backward pass */
    PyObject *owners; /* of the memory at the addresses below */
    int64_t *sizes, *selected;
    double *cells, *work;
    float *copies, *outputs, *rows;
    long long modules, width, kept, room, count, mark, norm_mark, passes, passes_before;
    long long own, spent[PROBES]; /* nanoseconds: of the step that runs, of all by probe */
    int64_t then[REFERENCES][2]; /* identity and version of gradients as the pass began */
    int asked, measured, received, unstepped, copied;
} Full;

static Py_ssize_t size_of(Full *self) { return PyTuple_GET_SIZE(self->parameters); }

/* Full(tape, parameters, references, queue, end, owners, (sizes, copies, work, outputs, selected),
   modules, kept, room): addresses and what owns the memory there, the number of
   measured modules, of their series that are kept, and of steps for which there is room. */
static int full_init(Full *self, PyObject *args, PyObject *kwargs) {
    (void)kwargs;
    PyObject *tape, *parameters, *references, *queue, *end, *owners;
    unsigned long long at[5];
    if (!PyArg_ParseTuple(args, "O!O!O!OOO(KKKKK)LLL", &TapeType, &tape, &PyTuple_Type, &parameters,
                          &PyTuple_Type, &references, &queue, &end, &owners, at, at + 1, at + 2,
                          at + 3, at + 4, &self->modules, &self->kept, &self->room))
        return -1;
    Py_XSETREF(self->tape, (Tape *)Py_NewRef(tape));
    Py_XSETREF(self->parameters, Py_NewRef(parameters));
    Py_XSETREF(self->references, Py_NewRef(references));
    Py_XSETREF(self->queue, Py_NewRef(queue));
    Py_XSETREF(self->end, Py_NewRef(end));
    Py_XSETREF(self->owners, Py_NewRef(owners));
    self->sizes = (int64_t *)(intptr_t)at[0];
    self->copies = (float *)(intptr_t)at[1];
    self->work = (double *)(intptr_t)at[2];
    self->outputs = (float *)(intptr_t)at[3];
    self->selected = (int64_t *)(intptr_t)at[4];
    self->width = 6 * size_of(self) + self->kept;
    free(self->rows);
    self->rows = malloc(sizeof(float) * self->width * self->room);
    if (!self->rows) PyErr_NoMemory();
    return self->rows ? 0 : -1;
}

#define OWNS(X) X(tape) X(parameters) X(references) X(queue) X(end) X(owners)

static int full_traverse(Full *self, visitproc visit, void *arg) {
#define VISIT(name) Py_VISIT(self->name);
    OWNS(VISIT)
#undef VISIT
    return 0;
}

static int full_clear(Full *self) {
#define CLEAR(name) Py_CLEAR(self->name);
    OWNS(CLEAR)
#undef CLEAR
    return 0;
}

static void full_free(Full *self) {
    PyObject_GC_UnTrack(self);
    full_clear(self);
    free(self->rows);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static double *cells_of(Full *self, int row) { return self->cells + row * size_of(self); }

/* Whether the tape belongs to this object: Python has not taken over. */
static int in_charge(Full *self) { return self->tape && self->tape->full == (PyObject *)self; }

static void charge(Full *self, int probe, long long nanoseconds) {
    self->spent[probe] += nanoseconds;
    self->own += nanoseconds;
}

/* ------------------------------------------------------------ the backward pass */

/* Identity and version of some gradients: they change when a pass adds to them. */
static void look(PyObject *references, int64_t (*found)[2]) {
    Py_ssize_t count = PyTuple_GET_SIZE(references);
    for (Py_ssize_t k = 0; k < count && k < REFERENCES; k++) {
        PyObject *g = PyObject_GetAttr(PyTuple_GET_ITEM(references, k), s_grad);
        found[k][0] = (int64_t)(intptr_t)g;
        found[k][1] = !g || g == Py_None ? -1 : number(PyObject_GetAttr(g, s__version));
        Py_XDECREF(g);
    }
    PyErr_Clear();
}

/* Whether all of them are frozen, so that they tell nothing of a pass. */
static int frozen(PyObject *references) {
    for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(references); k++)
        if (is_object(PyObject_GetAttr(PyTuple_GET_ITEM(references, k), s_requires_grad), Py_True))
            return 0;
    return 1;
}

static PyObject *full_end_backward(Full *self, PyObject *none);
static PyMethodDef end_backward = {"end_backward", (PyCFunction)full_end_backward, METH_NOARGS,
                                   NULL};

/* The first gradient of a pass asks the engine to call at its end. */
static void announce(PyObject *object) {
    Full *self = (Full *)object;
    if (self->asked) return;
    look(self->references, self->then);
    PyObject *hook = PyCFunction_New(&end_backward, object);
    PyObject *answer = hook ? PyObject_CallOneArg(self->queue, hook) : NULL;
    Py_XDECREF(hook);
    Py_XDECREF(answer);
    self->asked = answer != NULL;
    PyErr_Clear(); /* the step then counts as one without a backward pass */
}

static PyObject *full_end_backward(Full *self, PyObject *none) {
    (void)none;
    int64_t began = now(), found[REFERENCES][2];
    Tape *tape = self->tape;
    if (!in_charge(self)) return PyObject_CallNoArgs(self->end);
    Py_ssize_t count = PyTuple_GET_SIZE(self->references);
    look(self->references, found);
    int received = 0, fresh = 1;
    for (Py_ssize_t k = 0; k < count && k < REFERENCES; k++) {
        received |= found[k][0] != self->then[k][0] || found[k][1] != self->then[k][1];
        fresh &= self->then[k][1] == -1;
    }
    if (received ? !measure_gradients(self->parameters, cells_of(self, NORM),
                                      cells_of(self, LARGEST), cells_of(self, NONFINITE))
                 : !tape->open || frozen(self->references)) /* not all is on the tape, or known */
        return PyObject_CallNoArgs(self->end);
    if (received) {
        if (fresh) self->passes = self->passes_before = 0;
        self->passes++;
        self->measured = self->unstepped = 1;
        self->mark = tape->count;
        self->norm_mark = tape->norm_count;
        tape->phase++;
    } else { /* it went past the parameters, and what it left is no part of the step */
        tape->count = self->mark < tape->count ? self->mark : tape->count;
        tape->norm_count = self->norm_mark < tape->norm_count ? self->norm_mark : tape->norm_count;
    }
    self->asked = tape->announced = 0;
    charge(self, BY_GRADIENTS, now() - began + dispatch_ns);
    Py_RETURN_NONE;
}

/* ------------------------------------------------------------ around the optimizer's step */

/* Whether a gradient that the optimizer receives is non-finite; -1 where one cannot be read. */
static int receives_nonfinite(Full *self) {
    double *norms = cells_of(self, RECEIVED);
    int bad = 0;
    if (!self->received && !measure_gradients(self->parameters, norms, NULL, NULL)) return -1;
    self->received = 1;
    for (Py_ssize_t k = 0; k < size_of(self); k++) bad |= !isfinite(norms[k]);
    return bad;
}

/* receives_nonfinite(): None where one cannot be read. */
static PyObject *full_receives_nonfinite(Full *self, PyObject *none) {
    (void)none;
    int bad = receives_nonfinite(self);
    if (bad < 0) Py_RETURN_NONE;
    return PyBool_FromLong(bad);
}

/* Whether the step calls its own loss, or a GradScaler steps through it. */
static int driven(PyObject *optimizer, PyObject *args, PyObject *kwargs) {
    if (!PyTuple_Check(args) || PyTuple_GET_SIZE(args) > 1) return 1;
    if (!PyDict_Check(kwargs) || PyDict_GET_SIZE(kwargs)) return 1;
    PyObject *own = PyObject_GenericGetDict(optimizer, NULL);
    int found = !own || PyDict_Contains(own, s_grad_scale) || PyDict_Contains(own, s_found_inf);
    Py_XDECREF(own);
    PyErr_Clear();
    return found;
}

/* Before the step; whether it is an ordinary one. */
static int full_before(Full *self, PyObject *const *args, Py_ssize_t count) {
    int64_t began = now();
    if (!in_charge(self) || !self->measured || self->asked || count != 3) return 0;
    if (driven(args[0], args[1], args[2])) return 0;
    if (!self->received &&
        !measure_gradients(self->parameters, cells_of(self, RECEIVED), NULL, NULL))
        return 0;
    self->received = 1;
    self->copied = walk(self->parameters, self->sizes, self->copies, cells_of(self, BEFORE), NULL,
                        NULL);
    charge(self, BY_UPDATES, now() - began);
    return self->copied;
}

/* After it: the step's tables and totals. Whether all of it is finite. */
static int full_after(Full *self, double *totals) {
    int64_t began = now();
    Tape *tape = self->tape;
    Py_ssize_t size = size_of(self);
    if (!in_charge(self) || !self->copied || !tape->count || !tape->open ||
        self->count == self->room)
        return 0;
    if (!walk(self->parameters, self->sizes, self->copies, NULL, cells_of(self, CHANGE),
              cells_of(self, AFTER)))
        return 0;
    charge(self, BY_UPDATES, now() - began);
    began = now();
    float *row = self->rows + self->count * self->width;
    double bad = inspector_modules(tape->rows, tape->count, tape->norms, tape->norm_count, 1.0,
                                   self->modules, self->work, self->outputs, absent);
    inspector_parameters(self->cells, size, 1.0, 1.0, row, totals, absent);
    if (bad || totals[4] || !isfinite(totals[3])) return 0;
    row += 6 * size;
    for (long long k = 0; k < self->kept; k++)
        row[k] = self->outputs[self->selected[k]];
    self->count++;
    charge(self, BY_FORWARD, tape->forward_ns + tape->forward_calls * dispatch_ns);
    charge(self, BY_GRADIENTS, tape->gradient_ns + tape->gradient_calls * dispatch_ns);
    tape->forward_ns = tape->gradient_ns = tape->forward_calls = tape->gradient_calls = 0;
    tape->count = tape->norm_count = self->mark = self->norm_mark = 0;
    self->measured = self->received = self->unstepped = self->copied = 0;
    self->passes_before = self->passes;
    charge(self, BY_STEP, now() - began);
    return 1;
}

/* What the step that has ended took, of which no other has been told. */
static long long full_own(Full *self) {
    long long own = self->own;
    self->own = 0;
    return own;
}

/* zero_grad(); 0 where gradients are thrown away that no step has used. */
static int full_sweep(Full *self) {
    if (!in_charge(self) || (self->passes && self->unstepped)) return 0;
    self->passes = self->passes_before = 0;
    self->measured = 0;
    return 1;
}

/* ------------------------------------------------------------ for Python */

/* begin(cells, passes): this object does what the coming steps need. */
static PyObject *full_begin(Full *self, PyObject *args) {
    unsigned long long cells;
    if (!PyArg_ParseTuple(args, "KL", &cells, &self->passes)) return NULL;
    self->cells = (double *)(intptr_t)cells;
    self->passes_before = self->passes;
    self->count = self->mark = self->norm_mark = 0;
    self->asked = self->measured = self->received = self->unstepped = self->copied = 0;
    self->own = 0;
    memset(self->spent, 0, sizeof self->spent);
    Py_XSETREF(self->tape->full, Py_NewRef((PyObject *)self));
    Py_RETURN_NONE;
}

/* end(): Python takes over; gives the rows, the nanoseconds that each probe took, and what
   states() said as the backward pass began. */
static PyObject *full_end(Full *self, PyObject *none) {
    (void)none;
    Py_ssize_t count = PyTuple_GET_SIZE(self->references);
    PyObject *then = PyTuple_New(2 * count);
    for (Py_ssize_t k = 0; then && k < count; k++) {
        int64_t *state = self->then[k < REFERENCES ? k : REFERENCES - 1];
        PyTuple_SET_ITEM(then, 2 * k, PyLong_FromLongLong(state[0]));
        PyTuple_SET_ITEM(then, 2 * k + 1,
                         state[1] < 0 ? Py_NewRef(Py_None) : PyLong_FromLongLong(state[1]));
    }
    if (!then) return NULL;
    Py_CLEAR(self->tape->full);
    return Py_BuildValue("y#(LLLL)N", (char *)self->rows,
                         (Py_ssize_t)(sizeof(float) * self->count * self->width),
                         self->spent[BY_FORWARD], self->spent[BY_GRADIENTS],
                         self->spent[BY_UPDATES], self->spent[BY_STEP], then);
}

/* announce(): a gradient has arrived by a way that Python has found. */
static PyObject *full_announce(Full *self, PyObject *none) {
    (void)none;
    announce((PyObject *)self);
    Py_RETURN_NONE;
}

static PyMethodDef full_methods[] = {
    {"begin", (PyCFunction)full_begin, METH_VARARGS, NULL},
    {"end", (PyCFunction)full_end, METH_NOARGS, NULL},
    {"announce", (PyCFunction)full_announce, METH_NOARGS, NULL},
    {"receives_nonfinite", (PyCFunction)full_receives_nonfinite, METH_NOARGS, NULL},
    {NULL}};

static PyMemberDef full_members[] = {
    {"own", T_LONGLONG, offsetof(Full, own), READONLY, NULL},
    {"passes", T_LONGLONG, offsetof(Full, passes), READONLY, NULL},
    {"passes_before", T_LONGLONG, offsetof(Full, passes_before), READONLY, NULL},
    {"mark", T_LONGLONG, offsetof(Full, mark), READONLY, NULL},
    {"norm_mark", T_LONGLONG, offsetof(Full, norm_mark), READONLY, NULL},
    {"asked", T_INT, offsetof(Full, asked), READONLY, NULL},
    {"measured", T_INT, offsetof(Full, measured), READONLY, NULL},
    {"received", T_INT, offsetof(Full, received), READONLY, NULL},
    {"unstepped", T_INT, offsetof(Full, unstepped), READONLY, NULL},
    {"copied", T_INT, offsetof(Full, copied), READONLY, NULL},
    {NULL}};

static PyTypeObject FullType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "inspector_native.Full",
    .tp_doc = "Fully measured steps of the ordinary kind",
    .tp_basicsize = sizeof(Full),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)full_init,
    .tp_traverse = (traverseproc)full_traverse,
    .tp_clear = (inquiry)full_clear,
    .tp_dealloc = (destructor)full_free,
    .tp_methods = full_methods,
    .tp_members = full_members,
};
