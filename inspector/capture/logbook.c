/* The batches of the last steps, written down for the time machine as long as each step is of the
   ordinary kind: one call of the model with one tensor, a loss that is known, finite gradients.
   Everything else closes the book and goes to Python. Included by native.c; see machine.py. */

#define PAGES 64

typedef struct {
    long long step, nbytes;
    /* what Call has under these names; any may be NULL */
    PyObject *args, *versions, *random, *autocast, *loss_args, *loss, *output, *gradient;
    int complete;
} Page;

#define OBJECTS(X) X(args) X(versions) X(random) X(autocast) X(loss_args) X(loss) X(output) X(gradient)

typedef struct {
    PyObject_HEAD
    /* called for what is not ordinary, in the order of the methods; now() gives the step */
    PyObject *enter, *leave, *criterion, *on_loss, *receive, *before;
    PyObject *now, *state, *any_autocast, *autocast, *full, *output_mark;
    Stretch *pulse; /* counts the steps, and what they cost us; NULL without one */
    Page pages[PAGES];
    Page glance; /* at the batch of the step that runs, while the machine rests */
    long long first, count, bytes, limit, due, spent;
    double loss;
    int open, current, known, exact;
    int resting, glancing; /* at rest, each step may still be glanced at */
    int evaluating; /* calls in eval mode count, too */
} Logbook;

#define CALLS(X) X(enter) X(leave) X(criterion) X(on_loss) X(receive) X(before) X(now) X(state) \
    X(any_autocast) X(autocast) X(full) X(output_mark)

/* Logbook(enter, leave, criterion, on_loss, receive, before, now, state, any_autocast, autocast,
   full, output_mark, limit) */
static int book_init(Logbook *self, PyObject *args, PyObject *kwargs) {
    (void)kwargs;
    PyObject *calls[12];
    if (!PyArg_ParseTuple(args, "OOOOOOOOOOOOL", calls, calls + 1, calls + 2, calls + 3, calls + 4,
                          calls + 5, calls + 6, calls + 7, calls + 8, calls + 9, calls + 10, calls + 11,
                          &self->limit))
        return -1;
    int k = 0;
#define TAKE(name) Py_XSETREF(self->name, Py_NewRef(calls[k++]));
    CALLS(TAKE)
    self->current = -1;
    self->evaluating = 1;
    return 0;
}

static void page_clear(Page *page) {
#define CLEAR_OF(name) Py_CLEAR(page->name);
    OBJECTS(CLEAR_OF)
}

static int book_traverse(Logbook *self, visitproc visit, void *arg) {
#define VISIT(name) Py_VISIT(self->name);
    CALLS(VISIT)
    Py_VISIT(self->pulse);
    for (int k = 0; k < PAGES; k++) {
        Page *page = self->pages + k;
#define VISIT_OF(name) Py_VISIT(page->name);
        OBJECTS(VISIT_OF)
    }
    return 0;
}

static int book_clear(Logbook *self) {
    self->open = 0;
    self->current = -1;
    self->count = self->bytes = 0;
    for (int k = 0; k < PAGES; k++) page_clear(self->pages + k);
    page_clear(&self->glance);
#define CLEAR(name) Py_CLEAR(self->name);
    CALLS(CLEAR)
    Py_CLEAR(self->pulse);
    return 0;
}

static void book_free(Logbook *self) {
    PyObject_GC_UnTrack(self);
    book_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static void spend(Logbook *self, int64_t began) {
    int64_t taken = now() - began;
    self->spent += taken;
    if (self->pulse) self->pulse->own += taken;
}

static PyObject *otherwise(PyObject *call, PyObject *const *args, Py_ssize_t count) {
    if (!call) Py_RETURN_NONE; /* closed for good */
    return PyObject_Vectorcall(call, args, count, NULL);
}

/* Notes a plain tensor's version and size; 0 for any other object. */
static int note(Page *page, PyObject *tensor) {
    Borrowed b;
    if ((PyObject *)Py_TYPE(tensor) != tensor_type || !borrow) return 0;
    if (!is_object(PyObject_GetAttr(tensor, s_requires_grad), Py_False)) return 0;
    PyObject *version = PyObject_GetAttr(tensor, s__version);
    PyObject *pair = version ? PyTuple_Pack(2, tensor, version) : NULL;
    int done = pair && borrow(tensor, &b) == 0 && PyList_Append(page->versions, pair) == 0;
    Py_XDECREF(pair);
    Py_XDECREF(version);
    PyErr_Clear(); /* made in inference mode, sparse, … */
    if (!done) return 0;
    int64_t n = b.bits / 8;
    for (int d = 0; d < b.ndim; d++) n *= b.shape[d];
    page->nbytes += n;
    return 1;
}

/* The random numbers' state, as the list that a Call keeps: that of the page before while nobody
   has drawn any. */
static PyObject *random_state(Logbook *self, const Page *before) {
    PyObject *state = PyObject_CallNoArgs(self->state);
    if (!state) return NULL;
    PyObject *kept = before && before->random ? PyList_GET_ITEM(before->random, 0) : NULL;
    PyObject *list = kept && alike_bytes(kept, state) ? Py_NewRef(before->random) : NULL;
    if (!list && (list = PyList_New(1))) PyList_SET_ITEM(list, 0, Py_NewRef(state));
    Py_DECREF(state);
    return list;
}

static void forget_first(Logbook *self) {
    Page *page = self->pages + self->first;
    self->bytes -= page->nbytes;
    page_clear(page);
    self->first = (self->first + 1) % PAGES;
    self->count--;
}

/* What the model is called with; 0 where that is not one plain tensor. */
static int write_down(Logbook *self, Page *page, PyObject *args, long long step) {
    page->step = step;
    page->nbytes = page->complete = 0;
    page->args = Py_NewRef(args);
    page->versions = PyList_New(0);
    if (!is_object(PyObject_CallNoArgs(self->any_autocast), Py_False))
        page->autocast = PyObject_CallNoArgs(self->autocast);
    if (page->versions && note(page, PyTuple_GET_ITEM(args, 0)) && !PyErr_Occurred()) return 1;
    page_clear(page);
    return 0;
}

static int turn_page(Logbook *self, PyObject *args, long long step) {
    Page *before = self->current < 0 ? NULL : self->pages + self->current;
    PyObject *random = random_state(self, before);
    if (!random) return 0;
    if (before) Py_CLEAR(before->gradient);
    if (self->count == PAGES || (self->count > 1 && self->bytes > self->limit)) {
        if (self->full != Py_None) { /* what is older than these pages is too old */
            PyObject *answer = PyObject_CallNoArgs(self->full);
            Py_XDECREF(answer);
            PyErr_Clear();
            Py_SETREF(self->full, Py_NewRef(Py_None));
        }
        while (self->count == PAGES || (self->count > 1 && self->bytes > self->limit))
            forget_first(self);
    }
    int at = (int)((self->first + self->count) % PAGES);
    Page *page = self->pages + at;
    page->random = random;
    if (!write_down(self, page, args, step)) return 0;
    self->bytes += page->nbytes;
    self->count++;
    self->current = at;
    self->known = 0;
    return 1;
}

/* Whether the model is called with one object. */
static int alone(PyObject *args, PyObject *kwargs) {
    return PyTuple_CheckExact(args) && PyTuple_GET_SIZE(args) == 1 && PyDict_CheckExact(kwargs) &&
           !PyDict_GET_SIZE(kwargs);
}

static long long step_of(Logbook *self) {
    return self->pulse ? self->pulse->step : number(PyObject_CallNoArgs(self->now));
}

/* enter(model, args, kwargs): the model is about to be called. */
static PyObject *book_enter(Logbook *self, PyObject *const *args, Py_ssize_t count) {
    if (!self->enter || count != 3) Py_RETURN_NONE;
    if (!is_object(PyObject_CallNoArgs(grad_enabled), Py_True) ||
        !is_object(PyObject_CallNoArgs(transformed), Py_None) ||
        number(PyObject_CallNoArgs(task_id)) != -1)
        Py_RETURN_NONE;
    if (is_object(PyObject_GetAttr(args[0], s_training), Py_True)) self->evaluating = 0;
    else if (!self->evaluating) Py_RETURN_NONE;
    if (self->resting) {
        int64_t began = now();
        page_clear(&self->glance);
        long long step = step_of(self);
        if (alone(args[1], args[2])) write_down(self, &self->glance, args[1], step);
        PyErr_Clear();
        spend(self, began);
        if (step >= self->due) return otherwise(self->enter, args, count);
        Py_RETURN_NONE;
    }
    if (self->open) {
        int64_t began = now();
        long long step = step_of(self);
        int plain = step < self->due &&
                    (self->current < 0 || self->pages[self->current].step != step) &&
                    alone(args[1], args[2]);
        if (plain && turn_page(self, args[1], step)) {
            spend(self, began);
            Py_RETURN_NONE;
        }
        PyErr_Clear();
    }
    return otherwise(self->enter, args, count);
}

/* leave(output): the model was called, in a loop whose loss cannot be called again. */
static PyObject *book_leave(Logbook *self, PyObject *output) {
    PyObject *hook = NULL;
    if (self->open && !self->exact && self->current >= 0 &&
        (PyObject *)Py_TYPE(output) == tensor_type &&
        (hook = PyObject_GetAttr((PyObject *)self, s_receive))) {
        Page *page = self->pages + self->current;
        if (!page->output && (page->output = PyWeakref_NewRef(output, NULL)) &&
            listen(output, hook, minus_two, NULL) == 0) {
            Py_DECREF(hook);
            Py_RETURN_NONE;
        }
    }
    PyErr_Clear();
    Py_XDECREF(hook);
    return otherwise(self->leave, &output, 1);
}

/* receive(gradient): it has arrived at the model's output. */
static PyObject *book_receive(Logbook *self, PyObject *gradient) {
    if (!self->open) return otherwise(self->receive, &gradient, 1);
    if (self->current >= 0 && !self->exact)
        Py_XSETREF(self->pages[self->current].gradient, Py_NewRef(gradient));
    Py_RETURN_NONE;
}

/* What the loss was called with, the model's output marked; NULL where that is not ordinary. */
static PyObject *given_to_loss(Logbook *self, Page *page, PyObject *args) {
    PyObject *kept = PyTuple_New(PyTuple_GET_SIZE(args));
    int found = 0;
    for (Py_ssize_t k = 0; kept && k < PyTuple_GET_SIZE(args); k++) {
        PyObject *value = PyTuple_GET_ITEM(args, k);
        if ((PyObject *)Py_TYPE(value) != tensor_type) {
            Py_CLEAR(kept);
        } else if (is_object(PyObject_GetAttr(value, s_requires_grad), Py_True)) {
            int output = self->exact ? !found
                                     : page->output && PyWeakref_GetObject(page->output) == value;
            if (!output) Py_CLEAR(kept);
            found = 1;
            value = self->output_mark;
        } else if (!note(page, value)) {
            Py_CLEAR(kept);
        }
        if (kept) PyTuple_SET_ITEM(kept, k, Py_NewRef(value));
    }
    return kept;
}

/* criterion(args, kwargs, result): the loss module was called. */
static PyObject *book_criterion(Logbook *self, PyObject *const *args, Py_ssize_t count) {
    if (!self->criterion || count != 3) Py_RETURN_NONE;
    if (self->resting && !self->glance.args) Py_RETURN_NONE;
    if (!is_object(PyObject_CallNoArgs(grad_enabled), Py_True) ||
        !is_object(PyObject_CallNoArgs(transformed), Py_None) ||
        number(PyObject_CallNoArgs(task_id)) != -1)
        Py_RETURN_NONE;
    Page *page = self->resting                      ? &self->glance
                 : self->open && self->current >= 0 ? self->pages + self->current
                                                    : NULL;
    if (page && PyTuple_CheckExact(args[0]) && PyDict_CheckExact(args[1]) &&
        !PyDict_GET_SIZE(args[1]) && (PyObject *)Py_TYPE(args[2]) == tensor_type) {
        int64_t began = now();
        long long bytes = page->nbytes;
        PyObject *kept = given_to_loss(self, page, args[0]);
        PyObject *loss = kept ? PyWeakref_NewRef(args[2], NULL) : NULL;
        if (!self->resting) self->bytes += page->nbytes - bytes;
        if (loss) {
            Py_XSETREF(page->loss_args, kept);
            Py_XSETREF(page->loss, loss);
            spend(self, began);
            Py_RETURN_NONE;
        }
        Py_XDECREF(kept);
        PyErr_Clear();
    }
    if (self->resting) Py_RETURN_NONE;
    return otherwise(self->criterion, args, count);
}

/* on_loss(loss, value): what the script records. */
static PyObject *book_on_loss(Logbook *self, PyObject *const *args, Py_ssize_t count) {
    if (self->open && count) {
        if (self->current < 0) Py_RETURN_NONE; /* it belongs to a step that is over */
        Page *page = self->pages + self->current;
        if (PyFloat_CheckExact(args[0])) {
            self->loss = PyFloat_AS_DOUBLE(args[0]);
            self->known = 1;
            Py_RETURN_NONE;
        }
        page->complete = page->loss && PyWeakref_GetObject(page->loss) == args[0];
        if (page->complete == self->exact && item(args[0], &self->loss) &&
            isfinite(self->loss)) {
            self->known = 1;
            Py_RETURN_NONE;
        }
    }
    return otherwise(self->on_loss, args, count);
}

/* before(optimizer, args, kwargs): it is about to step. */
static PyObject *book_before(Logbook *self, PyObject *const *args, Py_ssize_t count) {
    int ordinary = self->open && self->current >= 0 && self->known && isfinite(self->loss);
    if (self->resting && !self->glancing) Py_RETURN_NONE;
    if (ordinary) ordinary = self->pages[self->current].step == step_of(self);
    if (self->resting && (!self->glance.args || self->glance.step != step_of(self)))
        self->evaluating = 1; /* the model was not called in training, so perhaps in eval mode */
    if ((ordinary || self->resting) && count) {
        int64_t began = now();
        Full *full = self->pulse ? self->pulse->full : NULL; /* it reads them anyhow */
        int finite = full && in_charge(full) ? receives_nonfinite(full) == 0
                                             : is_object(finite_gradients(NULL, args[0]), Py_True);
        spend(self, began);
        if (finite) Py_RETURN_NONE;
    }
    return otherwise(self->before, args, count);
}

/* follow(stretch): what counts the steps from now on. */
static PyObject *book_follow(Logbook *self, PyObject *stretch) {
    if (Py_TYPE(stretch) == &StretchType) Py_XSETREF(self->pulse, (Stretch *)Py_NewRef(stretch));
    Py_RETURN_NONE;
}

/* begin(due, exact): pages are written from the next call of the model on. */
static PyObject *book_begin(Logbook *self, PyObject *args) {
    if (!PyArg_ParseTuple(args, "Lp", &self->due, &self->exact)) return NULL;
    self->open = 1;
    Py_RETURN_NONE;
}

static PyObject *or_none(PyObject *value) { return value ? value : Py_None; }

static PyObject *page_tuple(const Page *p) {
    return Py_BuildValue("LLOOOOOOOOi", p->step, p->nbytes, or_none(p->args), or_none(p->versions),
                         or_none(p->random), or_none(p->autocast), or_none(p->loss_args), or_none(p->loss),
                         or_none(p->output), or_none(p->gradient), p->complete);
}

/* wake(): ends the rest; gives what the glance at the running step has seen, or None. */
static PyObject *book_wake(Logbook *self, PyObject *none) {
    (void)none;
    PyObject *seen = self->glance.args ? page_tuple(&self->glance) : Py_NewRef(Py_None);
    page_clear(&self->glance);
    self->resting = 0;
    return seen;
}

/* take(): closes the book; gives its pages, whether the last one's step still runs, and the loss
   or None. */
static PyObject *book_take(Logbook *self, PyObject *none) {
    (void)none;
    int running = self->current >= 0;
    PyObject *pages = PyList_New(self->count);
    for (int k = 0; pages && k < self->count; k++) {
        PyObject *page = page_tuple(self->pages + (self->first + k) % PAGES);
        if (!page)
            Py_CLEAR(pages);
        else
            PyList_SET_ITEM(pages, k, page);
    }
    if (!pages) return NULL;
    while (self->count) forget_first(self);
    self->open = 0;
    self->current = -1;
    PyObject *loss = running && self->known ? PyFloat_FromDouble(self->loss) : Py_NewRef(Py_None);
    self->known = 0;
    return Py_BuildValue("NNN", pages, PyBool_FromLong(running), loss);
}

/* close(): nothing is written or called from now on. */
static PyObject *book_close(Logbook *self, PyObject *none) {
    (void)none;
    book_clear(self);
    Py_RETURN_NONE;
}

static PyMethodDef book_methods[] = {
    {"enter", (PyCFunction)(void (*)(void))book_enter, METH_FASTCALL, NULL},
    {"leave", (PyCFunction)book_leave, METH_O, NULL},
    {"receive", (PyCFunction)book_receive, METH_O, NULL},
    {"criterion", (PyCFunction)(void (*)(void))book_criterion, METH_FASTCALL, NULL},
    {"on_loss", (PyCFunction)(void (*)(void))book_on_loss, METH_FASTCALL, NULL},
    {"before", (PyCFunction)(void (*)(void))book_before, METH_FASTCALL, NULL},
    {"follow", (PyCFunction)book_follow, METH_O, NULL},
    {"begin", (PyCFunction)book_begin, METH_VARARGS, NULL},
    {"wake", (PyCFunction)book_wake, METH_NOARGS, NULL},
    {"take", (PyCFunction)book_take, METH_NOARGS, NULL},
    {"close", (PyCFunction)book_close, METH_NOARGS, NULL},
    {NULL}};

static PyMemberDef book_members[] = {
    {"open", T_INT, offsetof(Logbook, open), READONLY, NULL},
    {"count", T_LONGLONG, offsetof(Logbook, count), READONLY, NULL},
    {"resting", T_INT, offsetof(Logbook, resting), 0, NULL},
    {"exact", T_INT, offsetof(Logbook, exact), 0, NULL},
    {"glancing", T_INT, offsetof(Logbook, glancing), 0, NULL},
    {"evaluating", T_INT, offsetof(Logbook, evaluating), 0, NULL},
    {"due", T_LONGLONG, offsetof(Logbook, due), 0, NULL},
    {"spent", T_LONGLONG, offsetof(Logbook, spent), 0, NULL},
    {"full", T_OBJECT_EX, offsetof(Logbook, full), 0, NULL},
    {NULL}};

static PyTypeObject LogbookType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "inspector_native.Logbook",
    .tp_doc = "What the time machine keeps of the last ordinary steps",
    .tp_basicsize = sizeof(Logbook),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)book_init,
    .tp_traverse = (traverseproc)book_traverse,
    .tp_clear = (inquiry)book_clear,
    .tp_dealloc = (destructor)book_free,
    .tp_methods = book_methods,
    .tp_members = book_members,
};
