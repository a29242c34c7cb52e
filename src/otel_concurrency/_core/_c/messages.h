/* An item from another process. */
#pragma once
#include "adoption.h"
#include "methods.h"

#ifndef MS_WINDOWS
#include <poll.h>
#endif

/* What is known of a queue of multiprocessing is in `sides`, by the id of the queue. `get`, which is a
 * function in Python, calls these before its original and after it, and does itself what they do not. */

/* Set `side` to what is known of `queue`, or to NULL. */
static int get_side(PyObject *sides, PyObject *queue, PyObject **side) {
    PyObject *key = PyLong_FromVoidPtr(queue);
    int status;
    *side = NULL;
    if (!PyDict_Check(sides)) {
        PyErr_SetString(PyExc_TypeError, "expected a dictionary");
    }
    status = key == NULL || PyErr_Occurred() ? -1 : PyDict_GetItemRef(sides, key, side);
    Py_XDECREF(key);
    return status;
}

/* Whether an item lies in the pipe of a queue, as far as that can be asked here. */
static int is_readable(State *state, PyObject *side) {
    int found = 0;
#ifndef MS_WINDOWS
    PyObject *number = PyObject_GetAttr(side, state->names.descriptor);
    struct pollfd asked = {-1, POLLIN, 0};
    if (number != NULL && number != Py_None) { /* it is None before the twin has asked */
        asked.fd = (int)PyLong_AsLong(number);
    }
    Py_XDECREF(number);
    if (PyErr_Occurred()) {
        return -1;
    }
    found = asked.fd >= 0 && poll(&asked, 1, 0) > 0 && (asked.revents & POLLIN) != 0;
#endif
    return found;
}

/* begins(seam, sides, queue): whether nothing is to be done before the flow asks a queue for an item, by the
 * twin `ask` of adoption.py. The seam is on. The flow has adopted nothing; or has started no span for that,
 * and need not wait. */
static PyObject *begins(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    State *state = PyModule_GetState(module);
    PyObject *record = NULL, *adopted = NULL, *current = NULL, *side = NULL;
    int status, off;
    if (expect(state, count, 3, 3) < 0) {
        return NULL;
    }
    status = get_adopted(state, &record) < 0 ? -1 : record == NULL || record == Py_None;
    if (status == 0 && is_record(record) && PyLong_AsLong(PyList_GET_ITEM(record, 3)) <= 0) {
        status = PyErr_Occurred() ? -1 : PyWeakref_GetRef(PyList_GET_ITEM(record, 0), &adopted);
        current = status > 0 ? get_current(state) : NULL;
        status = status <= 0 ? status : current == NULL ? -1 : current == adopted;
        status = status <= 0 ? status : get_side(args[1], args[2], &side);
        status = status <= 0 ? status : is_readable(state, side);
    }
    off = status <= 0 ? status : is_same(args[0], state->slots.capture, state->capture_nothing);
    Py_XDECREF(record);
    Py_XDECREF(adopted);
    Py_XDECREF(current);
    Py_XDECREF(side);
    if (status < 0 || off < 0) {
        leave_to_twin();
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_False);
    }
    return PyBool_FromLong(status && !off);
}

/* Return what the namespace of a module has under a name, if that is a tuple of that size; otherwise NULL,
 * with or without an exception. */
static PyObject *cached(PyObject *namespace, PyObject *name, Py_ssize_t size) {
    PyObject *last = NULL;
    if (!PyDict_Check(namespace)) {
        PyErr_SetString(PyExc_TypeError, "expected a namespace");
    } else if (PyDict_GetItemRef(namespace, name, &last) > 0 &&
               (!PyTuple_CheckExact(last) || PyTuple_GET_SIZE(last) != size)) {
        Py_CLEAR(last);
    }
    return last;
}

/* Whether the propagator is the one that is in use, for which carrier.py has a function. */
static int is_in_use(State *state, PyObject *carrier, PyObject *propagator) {
    PyObject *function, *used;
    int status = PyDict_GetItemRef(carrier, state->names.get_global_textmap, &function);
    used = status <= 0 ? NULL : call(function, NULL);
    Py_XDECREF(function);
    Py_XDECREF(used);
    return used == NULL ? -(PyErr_Occurred() != NULL) : used == propagator;
}

static int ends_with(PyObject *message, PyObject *trailer) {
    Py_ssize_t before;
    if (!PyBytes_CheckExact(message) || !PyBytes_CheckExact(trailer)) {
        return 0;
    }
    before = PyBytes_GET_SIZE(message) - PyBytes_GET_SIZE(trailer);
    return before >= 0 && memcmp(PyBytes_AS_STRING(message) + before, PyBytes_AS_STRING(trailer),
                                 PyBytes_GET_SIZE(trailer)) == 0;
}

/* Return the context behind `message`, if that is the last one which carrier.py has decoded; otherwise
 * NULL, with or without an exception. */
static PyObject *known_context(State *state, PyObject *message, PyObject *carrier) {
    PyObject *last = cached(carrier, state->names._decoded, 4), *context = NULL;
    if (last != NULL && ends_with(message, PyTuple_GET_ITEM(last, 3)) &&
        is_in_use(state, carrier, PyTuple_GET_ITEM(last, 1)) > 0) {
        context = Py_NewRef(PyTuple_GET_ITEM(last, 2));
    }
    Py_XDECREF(last);
    return context;
}

/* arrived(seam, sides, queue, message, carrier): whether all is done for an item that has come out
 * of the queue, with a message, or with None where nothing follows its pickle. The flow adopts the item's
 * context, if that is known; or it is in no context, and stays there. */
static PyObject *arrived(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    State *state = PyModule_GetState(module);
    PyObject *side = NULL, *loans = NULL, *settled = NULL, *context = NULL, *first = NULL;
    int status;
    if (expect(state, count, 5, 5) < 0 || (status = get_side(args[1], args[2], &side)) < 0) {
        return NULL;
    }
    loans = status == 0 ? NULL : PyObject_GetAttr(side, state->names.loans);
    settled = loans == NULL ? NULL : PyObject_GetAttr(loans, state->names.settled);
    status = settled == NULL ? 0 : PyObject_IsTrue(settled);
    if (status > 0 && args[3] == Py_None) {
        status = is_idle(state);
    } else if (status > 0) {
        context = known_context(state, args[3], args[4]);
        status = context == NULL ? 0 : PyObject_IsTrue(context);
        first = status <= 0 ? NULL : PyObject_GetAttr(loans, state->names.first);
        status = first == NULL ? 0 : first == Py_None;
        status = status <= 0 ? status : is_same(args[0], state->slots.capture, state->capture_nothing) == 0;
        if (status > 0) {
            status = PyObject_SetAttr(side, state->names.gave_contexts, Py_True);
            status = status < 0 ? -1 : adopt_context(state, context) == 0; /* a busy flow is for the loans */
        }
    }
    Py_XDECREF(side);
    Py_XDECREF(loans);
    Py_XDECREF(settled);
    Py_XDECREF(first);
    Py_XDECREF(context);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(status);
}

/* Return when the span of `context` has ended; None where it has not, or there is none. */
static PyObject *end_of_span(State *state, PyObject *context) {
    PyObject *span, *end = NULL;
    int status = state->span_key == NULL ? 0 : PyDict_GetItemRef(context, state->span_key, &span);
    if (status > 0) {
        end = PyObject_GetAttr(span, state->names._end_time);
        Py_DECREF(span);
        if (end == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
            PyErr_Clear(); /* it is no span of the SDK */
            status = 0;
        }
    }
    return status == 0 ? Py_NewRef(Py_None) : end;
}

/* known_trailer(context, carrier): the trailer of the context, if that is the last one which the function of
 * this module has encoded; otherwise None. */
static PyObject *known_trailer(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    State *state = PyModule_GetState(module);
    PyObject *last, *known = NULL, *end = NULL, *trailer = NULL;
    int status = 0;
    if (expect(state, count, 2, 2) < 0) {
        return NULL;
    }
    last = cached(args[1], state->names._encoded, 4);
    if (last != NULL && PyWeakref_Check(PyTuple_GET_ITEM(last, 0)) && PyDict_Check(args[0])) {
        status = PyWeakref_GetRef(PyTuple_GET_ITEM(last, 0), &known);
        status = status <= 0 ? status : known == args[0];
        status = status <= 0 ? status : is_in_use(state, args[1], PyTuple_GET_ITEM(last, 1));
        end = status <= 0 ? NULL : end_of_span(state, args[0]);
        status = end == NULL ? 0 : PyObject_RichCompareBool(PyTuple_GET_ITEM(last, 2), end, Py_EQ);
    }
    if (status > 0 && PyTuple_CheckExact(PyTuple_GET_ITEM(last, 3))) {
        trailer = PySequence_GetItem(PyTuple_GET_ITEM(last, 3), 1);
    }
    Py_XDECREF(last);
    Py_XDECREF(known);
    Py_XDECREF(end);
    return trailer != NULL || PyErr_Occurred() ? trailer : Py_NewRef(Py_None);
}
