/* Collections: what the collector ends runs in no context. */
#pragma once
#include "faults.h"

/* Whether `args` are a phase, this one, and something about the collection. */
static int is_phase(State *state, PyObject *const *args, Py_ssize_t count, const char *phase) {
    if (expect(state, count, 2, 2) < 0) {
        return -1;
    }
    if (!PyUnicode_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "expected the phase of a collection");
        return -1;
    }
    return PyUnicode_CompareWithASCIIString(args[0], phase) == 0;
}

/* The variable that the current context is in, borrowed; NULL where it is in none. `attach` may be a
 * function in Python, which counts what arrives. */
static PyObject *own_variable(State *state) {
    PyObject *get = state->get_current;
    PyObject *owner = get != NULL && PyCFunction_Check(get) ? PyCFunction_GET_SELF(get) : NULL;
    return owner != NULL && PyContextVar_CheckExact(owner) ? owner : NULL;
}

/* begin_collection(phase, info), which gc.callbacks calls: what the collector ends runs in no context.
 * No code in Python runs here, so a signal is handled after the collection, not in it. */
static PyObject *begin_collection(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    State *state = PyModule_GetState(module);
    PyObject *variable = own_variable(state), *record, *interrupt = NULL;
    int begins = is_phase(state, args, count, "start"), status = 0;
    if (begins < 0) {
        return NULL;
    }
    if (begins && variable != NULL) {
        Py_XSETREF(state->token, PyContextVar_Set(variable, state->NO_CONTEXT));
        status = state->token == NULL ? -1 : get_adopted(state, &record);
        if (status == 0) {
            Py_XSETREF(state->record, record);
            status = record == Py_None ? 0 : set_adopted(state, Py_None);
        }
    }
    if (status < 0) {
        report(state, "attach", &interrupt);
    }
    return outcome(interrupt == NULL ? Py_NewRef(Py_None) : NULL, NULL, interrupt);
}

/* end_collection(phase, info): the flow is where it was. */
static PyObject *end_collection(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    State *state = PyModule_GetState(module);
    PyObject *variable = own_variable(state), *present, *interrupt = NULL;
    PyObject *token = state->token, *record = state->record;
    int ends = is_phase(state, args, count, "stop");
    if (ends < 0) {
        return NULL;
    }
    if (ends && token != NULL) {
        state->token = state->record = NULL;
        if (variable != NULL && PyContextVar_Reset(variable, token) < 0) {
            report(state, "detach", &interrupt);
        }
        if (record != NULL && get_adopted(state, &present) == 0) {
            if (present != record) {
                set_adopted(state, record);
            }
            Py_DECREF(present);
        }
        if (PyErr_Occurred()) {
            report(state, "detach", &interrupt);
        }
        Py_DECREF(token);
        Py_XDECREF(record);
    }
    return outcome(interrupt == NULL ? Py_NewRef(Py_None) : NULL, NULL, interrupt);
}

/* is_collecting(): whether a collection has begun, and its end was not heard of. */
static PyObject *is_collecting(PyObject *module, PyObject *Py_UNUSED(nothing)) {
    return PyBool_FromLong(((State *)PyModule_GetState(module))->token != NULL);
}
