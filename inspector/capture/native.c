/* The parts of capturing that run in every hook, in C, so that a hook costs less than Python's
   call of it. Needs Python's headers and nothing of PyTorch: tensors are read through DLPack's C
   interface, or asked by their methods. Python code does the same where this cannot be built. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include "kernel.c"
#include "reading.c"
#include "tape.c"
#include "parameters.c"
#include "full.c"
#include "stretch.c"
#include "step_hooks.c"
#include "logbook.c"

/* checksum(tensor): tells batches apart; 0 where the tensor cannot be read here. */
static PyObject *checksum(PyObject *module, PyObject *tensor) {
    (void)module;
    return PyLong_FromUnsignedLongLong(checksum_of(tensor));
}

static PyObject *setup(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *capsule;
    if (!PyArg_ParseTuple(args, "OOOOOOOOOOIL", &tensor_type, &parameter_type, &float32, &strided,
                          &channels_last, &ordered_dict, &grad_enabled, &task_id, &transformed,
                          &capsule, &absent, &dispatch_ns))
        return NULL;
    borrow = NULL;
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
    {"checksum", checksum, METH_O, NULL},
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
        PyModule_AddType(module, &FullType) < 0 || PyModule_AddType(module, &StepHooksType) < 0 ||
        PyModule_AddType(module, &OrdinaryStepType) < 0 || PyModule_AddType(module, &LogbookType) < 0)
        return NULL;
    return module;
}
