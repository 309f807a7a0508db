/* The hooks of an optimizer: while steps are left to the extension nothing else is called.
   Included by native.c. */

typedef struct {
    PyObject_HEAD
    Stretch *stretch;
    PyObject *optimizer, *before, *after, *sweep;
    long long stepped;
    int first; /* the step is over once this optimizer has stepped */
    int swept; /* zero_grad() was called since Python last asked */
} StepHooks;

/* StepHooks(stretch, weakref of the optimizer, before, after, sweep, first): what is called at other
   times. */
static int hooks_init(StepHooks *self, PyObject *args, PyObject *kwargs) {
    (void)kwargs;
    PyObject *stretch, *optimizer, *before, *after, *sweep;
    if (!PyArg_ParseTuple(args, "O!OOOOp", &StretchType, &stretch, &optimizer, &before, &after,
                          &sweep, &self->first))
        return -1;
    Py_XSETREF(self->stretch, (Stretch *)Py_NewRef(stretch));
    Py_XSETREF(self->optimizer, Py_NewRef(optimizer));
    Py_XSETREF(self->before, Py_NewRef(before));
    Py_XSETREF(self->after, Py_NewRef(after));
    Py_XSETREF(self->sweep, Py_NewRef(sweep));
    return 0;
}

static int hooks_traverse(StepHooks *self, visitproc visit, void *arg) {
    Py_VISIT(self->stretch);
    Py_VISIT(self->optimizer);
    Py_VISIT(self->before);
    Py_VISIT(self->after);
    Py_VISIT(self->sweep);
    return 0;
}

static int hooks_clear(StepHooks *self) {
    Py_CLEAR(self->stretch);
    Py_CLEAR(self->optimizer);
    Py_CLEAR(self->before);
    Py_CLEAR(self->after);
    Py_CLEAR(self->sweep);
    return 0;
}

static void hooks_free(StepHooks *self) {
    PyObject_GC_UnTrack(self);
    hooks_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

/* before(optimizer, args, kwargs): the optimizer is about to step. */
static PyObject *hooks_before(StepHooks *self, PyObject *const *args, Py_ssize_t count) {
    PyObject *full = Py_XNewRef((PyObject *)self->stretch->full); /* whatever runs meanwhile */
    int done = self->stretch->open && (!full || full_before((Full *)full, args, count));
    Py_XDECREF(full);
    if (done) Py_RETURN_NONE;
    return PyObject_Vectorcall(self->before, args, count, NULL);
}

/* after(optimizer, args, kwargs): the optimizer has stepped. */
static PyObject *hooks_after(StepHooks *self, PyObject *const *args, Py_ssize_t count) {
    self->stepped++;
    if (self->stretch->open && count && (!self->first || stretch_step(self->stretch, args[0])))
        Py_RETURN_NONE;
    return PyObject_Vectorcall(self->after, args, count, NULL);
}

/* sweep(...): zero_grad() of the optimizer's class. */
static PyObject *hooks_sweep(StepHooks *self, PyObject *args, PyObject *kwargs) {
    Stretch *stretch = self->stretch;
    if (!stretch->open || (stretch->full && !full_sweep(stretch->full)))
        return PyObject_Call(self->sweep, args, kwargs);
    PyObject *optimizer = Py_NewRef(PyWeakref_GetObject(self->optimizer));
    if (self->first) stretch->passes = 0;
    self->swept = 1;
    if (optimizer == Py_None) return optimizer;
    PyObject *method = PyObject_GetAttr((PyObject *)Py_TYPE(optimizer), s_zero_grad);
    PyObject *own = PyTuple_Pack(1, optimizer);
    PyObject *all = own ? PySequence_Concat(own, args) : NULL;
    PyObject *answer = method && all ? PyObject_Call(method, all, kwargs) : NULL;
    Py_XDECREF(all);
    Py_XDECREF(own);
    Py_XDECREF(method);
    Py_DECREF(optimizer);
    return answer;
}

static PyMethodDef hooks_methods[] = {
    {"before", (PyCFunction)(void (*)(void))hooks_before, METH_FASTCALL, NULL},
    {"after", (PyCFunction)(void (*)(void))hooks_after, METH_FASTCALL, NULL},
    {"sweep", (PyCFunction)(void (*)(void))hooks_sweep, METH_VARARGS | METH_KEYWORDS, NULL},
    {NULL}};

static PyMemberDef hooks_members[] = {
    {"stepped", T_LONGLONG, offsetof(StepHooks, stepped), READONLY, NULL},
    {"swept", T_INT, offsetof(StepHooks, swept), 0, NULL},
    {NULL}};

static PyTypeObject StepHooksType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "inspector_native.StepHooks",
    .tp_doc = "StepHooks(stretch, weakref of the optimizer, before, after, sweep, first)",
    .tp_basicsize = sizeof(StepHooks),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)hooks_init,
    .tp_traverse = (traverseproc)hooks_traverse,
    .tp_clear = (inquiry)hooks_clear,
    .tp_dealloc = (destructor)hooks_free,
    .tp_methods = hooks_methods,
    .tp_members = hooks_members,
};

/* Calls a hook before an ordinary step; one that is given a closure, or anything else, begins with
   the function ``start``, see step_hooks.py. */
typedef struct {
    PyObject_HEAD
    PyObject *hook, *start; /* NULL once it is silent */
} OrdinaryStep;

/* OrdinaryStep(hook, start) */
static int ordinary_init(OrdinaryStep *self, PyObject *args, PyObject *kwargs) {
    (void)kwargs;
    PyObject *hook, *start;
    if (!PyArg_ParseTuple(args, "OO", &hook, &start)) return -1;
    Py_XSETREF(self->hook, Py_NewRef(hook));
    Py_XSETREF(self->start, Py_NewRef(start));
    return 0;
}

static int ordinary_traverse(OrdinaryStep *self, visitproc visit, void *arg) {
    Py_VISIT(self->hook);
    Py_VISIT(self->start);
    return 0;
}

static int ordinary_clear(OrdinaryStep *self) {
    Py_CLEAR(self->hook);
    Py_CLEAR(self->start);
    return 0;
}

static void ordinary_free(OrdinaryStep *self) {
    PyObject_GC_UnTrack(self);
    ordinary_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

/* before(optimizer, args, kwargs) */
static PyObject *ordinary_before(OrdinaryStep *self, PyObject *const *args, Py_ssize_t count) {
    if (!self->hook) Py_RETURN_NONE;
    int plain = count == 3 && PyTuple_CheckExact(args[1]) && PyTuple_GET_SIZE(args[1]) < 2 &&
                PyDict_CheckExact(args[2]) && !PyDict_GET_SIZE(args[2]);
    PyObject *call = Py_NewRef(plain ? self->hook : self->start); /* it may silence this one */
    PyObject *answer = PyObject_Vectorcall(call, args, count, NULL);
    Py_DECREF(call);
    if (answer && plain) Py_SETREF(answer, Py_NewRef(Py_None));
    return answer;
}

/* silence(): nothing is called any more. */
static PyObject *ordinary_silence(OrdinaryStep *self, PyObject *none) {
    (void)none;
    ordinary_clear(self);
    Py_RETURN_NONE;
}

static PyMethodDef ordinary_methods[] = {
    {"before", (PyCFunction)(void (*)(void))ordinary_before, METH_FASTCALL, NULL},
    {"silence", (PyCFunction)ordinary_silence, METH_NOARGS, NULL},
    {NULL}};

static PyTypeObject OrdinaryStepType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "inspector_native.OrdinaryStep",
    .tp_doc = "OrdinaryStep(hook, start)",
    .tp_basicsize = sizeof(OrdinaryStep),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)ordinary_init,
    .tp_traverse = (traverseproc)ordinary_traverse,
    .tp_clear = (inquiry)ordinary_clear,
    .tp_dealloc = (destructor)ordinary_free,
    .tp_methods = ordinary_methods,
};
