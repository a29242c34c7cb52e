/* put and get of SimpleQueue. */
#pragma once
#include "adoption.h"
#include "methods.h"

enum { EMPTY = MORE, LOANS, SETTLED_LOANS, LOANS_TO_PASS };

/* Whether all is known of what comes back to a queue (1), or nothing yet (0); else more is noted (2). */
static int loans_of(Method *self, PyObject *queue) {
    PyObject *loans = read_slot(queue, PART(self, LOANS));
    int status = loans == NULL ? -1 : loans == Py_None ? 1 : 2 * PyObject_IsTrue(loans);
    Py_XDECREF(loans);
    return status;
}

/* put(self, item, block=True, timeout=None) */
static PyObject *put_simple(State *state, Method *self, PyObject *const *args, Py_ssize_t count) {
    PyObject *call[4] = {args[0]}, *function, *context, *stored = NULL, *nothing;
    int holds, loans, off = 0;
    function = read_slot(PART(self, SEAM), state->slots.current);
    if (function == NULL) {
        return leave_to_twin();
    }
    context = function == state->get_current ? get_current(state) : NULL; /* the twin calls others */
    Py_DECREF(function);
    holds = context == NULL ? -1 : PyObject_IsTrue(context);
    loans = holds < 0 ? -1 : loans_of(self, args[0]);
    if (holds > 0 && loans == 1) {
        off = is_same(PART(self, SEAM), state->slots.capture, state->capture_nothing);
        stored = off ? NULL : PyTuple_Pack(3, PART(self, MARK), args[1], context);
    } else if (holds == 0 && (loans == 0 || loans == 1)) {
        stored = Py_NewRef(args[1]);
    }
    Py_XDECREF(context);
    if (stored == NULL) {
        return leave_to_twin();
    }
    for (Py_ssize_t number = 2; number < count; number++) {
        call[number] = args[number];
    }
    call[1] = stored;
    nothing = PyObject_Vectorcall(PART(self, PLAIN), call, count, NULL);
    Py_DECREF(stored);
    return nothing;
}

/* Whether `context`, in which an item was stored or NULL, is all that matters in handing it over. */
static int is_plain(State *state, Method *self, PyObject *queue, PyObject *context, int has_adopted) {
    int status;
    if (has_adopted || context != NULL) {
        status = is_same(PART(self, SEAM), state->slots.capture, state->capture_nothing);
        if (status != 0) {
            return status < 0 ? -1 : 0;
        }
    }
    if (context != NULL) {
        return is_same(PART(self, SEAM), state->slots.change, Py_None);
    }
    context = get_current(state);
    status = context == NULL ? -1 : PyObject_IsTrue(context);
    Py_XDECREF(context);
    if (status == 0) {
        status = loans_of(self, queue);
        return status < 0 ? -1 : status != 2;
    }
    return status < 0 ? -1 : 0;
}

/* The same of a SimpleQueue, where it is known that it hands work on. */
static int is_passed_by(State *state, Method *self, PyObject *queue) {
    PyObject *loans;
    int status = loans_of(self, queue);
    if (status != 1) {
        return status < 0 ? -1 : 0;
    }
    loans = read_slot(queue, PART(self, SETTLED_LOANS));
    status = loans == NULL ? -1 : is_passed(state, loans, PART(self, LOANS_TO_PASS));
    Py_XDECREF(loans);
    return status;
}

/* Return the item in what was `stored`, of which this takes the reference, and adopt its context. */
static PyObject *deliver(State *state, Method *self, PyObject *queue, PyObject *stored, int has_adopted) {
    PyObject *item = stored, *context = NULL, *nothing, *interrupt = NULL;
    Py_ssize_t size = PyTuple_CheckExact(stored) ? PyTuple_GET_SIZE(stored) : 0;
    int status;
    if (size == 3 && PyTuple_GET_ITEM(stored, 0) == PART(self, MARK)) {
        item = PyTuple_GET_ITEM(stored, 1);
        context = PyTuple_GET_ITEM(stored, 2);
    }
    status = size == 4 ? 0 : is_plain(state, self, queue, context, has_adopted);
    if (status == 0) {
        item = PyObject_CallFunctionObjArgs(PART(self, DELIVER), queue, stored, NULL);
        Py_DECREF(stored);
        return item;
    }
    if (status > 0 && context != NULL) {
        status = adopt_context(state, context);
        if (status > 0 && (status = is_passed_by(state, self, queue)) == 0) {
            nothing = PyObject_CallFunctionObjArgs(PART(self, LEND), queue, item, context, NULL);
            status = nothing == NULL ? -1 : 0;
            Py_XDECREF(nothing);
        }
    }
    if (status < 0) {
        report(state, "get", &interrupt);
    }
    Py_INCREF(item);
    Py_DECREF(stored);
    return outcome(item, NULL, interrupt);
}

/* get(self), which waits for ever. */
static PyObject *get_simple(State *state, Method *self, PyObject *const *args, Py_ssize_t count) {
    PyObject *call[2] = {args[0], Py_False}, *record, *stored;
    int has_adopted;
    if (get_adopted(state, &record) < 0) {
        return leave_to_twin();
    }
    has_adopted = record != NULL && record != Py_None;
    Py_XDECREF(record);
    stored = PyObject_Vectorcall(PART(self, PLAIN), call, has_adopted ? 2 : count, NULL);
    if (stored != NULL) {
        return deliver(state, self, args[0], stored, has_adopted);
    }
    if (has_adopted && PyErr_ExceptionMatches(PART(self, EMPTY))) {
        PyErr_Clear(); /* the twin lets go, and waits */
    }
    return NULL;
}
