/* The hooks on modules and on their outputs, and the tape on which they write. Included by
   native.c; forward.py and hooks.py do the same where this cannot be built. */

/* ------------------------------------------------------------ tape: what hooks write down */

typedef struct {
    PyObject_HEAD
    double *rows, *norms;
    int64_t count, room, norm_count, norm_room;
    long long forward_ns, gradient_ns, forward_calls, gradient_calls, phase;
    int open, listening, waiting, announced;
    int evaluating; /* passes in eval mode count, too: the model has not trained in the other */
    PyObject *model, *on_forward, *on_gradient;
    PyObject *full; /* the Full that does the steps by itself at present, or NULL */
} Tape;

static void announce(PyObject *full);

static int tape_init(Tape *self, PyObject *args, PyObject *kwargs) {
    (void)kwargs;
    PyObject *model, *on_forward, *on_gradient;
    if (!PyArg_ParseTuple(args, "OOO", &model, &on_forward, &on_gradient)) return -1;
    Py_XSETREF(self->model, Py_NewRef(model));
    Py_XSETREF(self->on_forward, Py_NewRef(on_forward));
    Py_XSETREF(self->on_gradient, Py_NewRef(on_gradient));
    self->evaluating = 1;
    return 0;
}

static int tape_traverse(Tape *self, visitproc visit, void *arg) {
    Py_VISIT(self->model);
    Py_VISIT(self->on_forward);
    Py_VISIT(self->on_gradient);
    Py_VISIT(self->full);
    return 0;
}

static int tape_clear(Tape *self) {
    Py_CLEAR(self->model);
    Py_CLEAR(self->on_forward);
    Py_CLEAR(self->on_gradient);
    Py_CLEAR(self->full);
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

/* reduce(scale, modules, work, out): joins the rows of each module as
   inspector_modules() does, and forgets them. Answers the non-finite total, and column and count
   of the first row that has some. */
static PyObject *tape_reduce(Tape *self, PyObject *args) {
    double scale, column = -1, found = 0;
    long long modules;
    unsigned long long work, out;
    if (!PyArg_ParseTuple(args, "dLKK", &scale, &modules, &work, &out)) return NULL;
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
    {"evaluating", T_INT, offsetof(Tape, evaluating), 0, NULL},
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
    PyObject *hook, *kept[2]; /* receive(), and dictionaries with it that outputs have had */
    double low, high;
    long long column, phase;
    int bounded, dead, known, turn;
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
    Py_VISIT(self->hook);
    Py_VISIT(self->kept[0]);
    Py_VISIT(self->kept[1]);
    return 0;
}

static int site_clear(Site *self) {
    Py_CLEAR(self->tape);
    Py_CLEAR(self->slow);
    Py_CLEAR(self->slow_gradient);
    Py_CLEAR(self->hook);
    Py_CLEAR(self->kept[0]);
    Py_CLEAR(self->kept[1]);
    return 0;
}

static void site_free(Site *self) {
    PyObject_GC_UnTrack(self);
    site_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static int training(Tape *tape) {
    PyObject *model = PyWeakref_GetObject(tape->model);
    if (!model || model == Py_None) return 0;
    int trains = is_object(PyObject_GetAttr(model, s_training), Py_True);
    if (trains) tape->evaluating = 0;
    return trains || tape->evaluating;
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
    if (!tape->announced && tape->full) {
        PyObject *full = Py_NewRef(tape->full); /* whatever runs meanwhile */
        announce(full);
        Py_DECREF(full);
        tape->announced = 1;
    } else if (!tape->announced) {
        if (!survived(PyObject_CallNoArgs(tape->on_gradient))) return NULL;
        tape->announced = 1;
    }
    if (tape->listening && self->column >= 0) {
        int dense = readable(gradient, &x, &n);
        if (dense || repeated(gradient, &x, &n)) {
            double *pair = next(&tape->norms, &tape->norm_count, &tape->norm_room, 2);
            if (!pair) return PyErr_NoMemory();
            pair[0] = (double)self->column;
            pair[1] = dense ? inspector_norm(x, n) : fabs((double)*x) * sqrt((double)n);
        } else {
            PyObject *answer =
                PyObject_CallFunction(self->slow_gradient, "LO", self->column, gradient);
            if (!survived(answer)) return NULL;
        }
    }
    tape->gradient_ns += now() - began;
    tape->gradient_calls++;
    Py_RETURN_NONE;
}

static PyMethodDef receive = {"receive", (PyCFunction)site_receive, METH_O, NULL};

/* A dictionary with the hook; one that is kept and that no tensor has any more, where there is such
   a one, as new ones in every call would keep Python's garbage collector busy. */
static PyObject *hooks_with(PyObject *hook, PyObject *key, PyObject **kept) {
    if (kept && *kept && Py_REFCNT(*kept) == 1 && PyDict_GET_SIZE(*kept) == 1)
        return Py_NewRef(*kept);
    PyObject *hooks = PyObject_CallNoArgs(ordered_dict);
    if (hooks && PyObject_SetItem(hooks, key, hook) < 0) Py_CLEAR(hooks);
    if (hooks && kept) Py_XSETREF(*kept, Py_NewRef(hooks));
    return hooks;
}

/* tensor.register_hook(hook) without the handle, which costs more than the hook. */
static int listen(PyObject *tensor, PyObject *hook, PyObject *key, PyObject **kept) {
    PyObject *maker = PyObject_GetAttr(tensor, s_grad_fn);
    if (!maker || !hook) {
        Py_XDECREF(maker);
        return -1;
    }
    int result = -1;
    PyObject *hooks = NULL, *answer = NULL;
    if (maker == Py_None) {
        result = 0;
    } else if ((hooks = PyObject_GetAttr(tensor, s__backward_hooks))) {
        if (PyDict_Check(hooks) && PyDict_Contains(hooks, key) == 0)
            answer = PyObject_SetItem(hooks, key, hook) ? NULL : Py_NewRef(Py_None);
        else if (hooks != Py_None)
            answer = PyObject_CallMethodOneArg(tensor, s_register_hook, hook);
        else {
            Py_SETREF(hooks, hooks_with(hook, key, kept));
            if (hooks && PyObject_SetAttr(tensor, s__backward_hooks, hooks) == 0)
                answer = PyObject_CallMethodOneArg(maker, s__register_hook_dict, tensor);
        }
        result = answer ? 0 : -1;
    }
    Py_XDECREF(answer);
    Py_XDECREF(hooks);
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

static int ordinary(Tape *tape, PyObject *output, int again) {
    return (PyObject *)Py_TYPE(output) == tensor_type &&
           is_object(PyObject_CallNoArgs(transformed), Py_None) && (again || training(tape));
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
    int again = number(PyObject_CallNoArgs(task_id)) != -1; /* recomputed by a checkpoint */
    int counts = self->column >= 0 && !(again && self->phase == tape->phase);
    if (!self->known || !tape->open || !ordinary(tape, output, again) ||
        (counts && (!readable(output, &x, &n) || !n)))
        return PyObject_Vectorcall(self->slow, args, 2, NULL);
    if (!again) {
        if (tape->waiting) {
            tape->waiting = 0;
            if (!survived(PyObject_CallNoArgs(tape->on_forward))) return NULL;
        }
        self->phase = tape->phase;
    }
    if (counts) {
        double *row = next(&tape->rows, &tape->count, &tape->room, 8);
        if (!row) return PyErr_NoMemory();
        inspector_output(x, n, self->low, self->high, self->bounded, (double)self->column, row);
    }
    if (self->column >= 0 || !heard(output)) {
        if (!self->hook) self->hook = PyCFunction_New(&receive, (PyObject *)self);
        int heard_of = listen(output, self->hook, minus_one, &self->kept[self->turn ^= 1]) == 0;
        if (!survived(heard_of ? Py_NewRef(Py_None) : NULL)) return NULL;
    }
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
