/* Adopting the context of an item; the twin is _items/adoption.py. */
#pragma once
#include "faults.h"
#include "slots.h"

/* What adopt_plainly() returns beside -1, after a fault. */
enum { ADOPTED, NOT_PLAIN, BUSY };

/* Have the flow be in its `record` again, or in none, where attaching `context` has failed. */
static void take_back(State *state, PyObject *context, PyObject *record) {
    PyObject *error = PyErr_GetRaisedException(), *current;
    int can_go_on = PyErr_GivenExceptionMatches(error, PyExc_Exception);
    current = can_go_on ? get_current(state) : NULL;
    if (current != NULL && current != context) {
        set_adopted(state, record == NULL ? Py_None : record);
    }
    Py_XDECREF(current);
    if (PyErr_Occurred()) {
        Py_DECREF(error);
    } else {
        PyErr_SetRaisedException(error);
    }
}

/* Have the flow adopt `context`, in the place of what it has in its `record`, or above `current`. */
static int begin_adoption(State *state, PyObject *context, PyObject *record, PyObject *current,
                          PyObject *stage, PyObject *batch) {
    PyObject *reference, *made, *token = NULL;
    if (!state->has_adopted && PyDict_SetItemString(state->namespace, "any_adopted", Py_True) < 0) {
        return -1;
    }
    state->has_adopted = 1;
    reference = PyWeakref_NewRef(context, NULL);
    made = reference == NULL ? NULL : PyList_New(5);
    if (made != NULL) {
        PyList_SET_ITEM(made, 0, Py_NewRef(reference));
        PyList_SET_ITEM(made, 1, Py_NewRef(record == NULL ? current : PyList_GET_ITEM(record, 1)));
        PyList_SET_ITEM(made, 2, Py_NewRef(record == NULL ? state->empty : PyList_GET_ITEM(record, 2)));
        PyList_SET_ITEM(made, 3, Py_NewRef(stage));
        PyList_SET_ITEM(made, 4, Py_NewRef(batch));
    }
    if (made != NULL && set_adopted(state, made) == 0 && (token = attach(state, context)) == NULL) {
        take_back(state, context, record);
    }
    Py_XDECREF(reference);
    Py_XDECREF(made);
    Py_XDECREF(token);
    return token == NULL ? -1 : ADOPTED;
}

static int at_stage(PyObject *record, PyObject *stage) {
    return PyList_SetItem(record, 3, Py_NewRef(stage)) < 0 ? -1 : ADOPTED;
}

/* The same, where the flow has several items, one of which had this context. */
static int adopt_in_batch(State *state, PyObject *context, PyObject *record) {
    PyObject *batch = Py_NewRef(PyList_GET_ITEM(record, 4)), *contexts = read_slot(batch, state->known);
    PyObject *key = PyLong_FromVoidPtr(context), *found = NULL, *known = NULL;
    int status = key == NULL || contexts == NULL ? -1 : PyDict_CheckExact(contexts);
    if (status > 0) {
        status = PyDict_GetItemRef(contexts, key, &found);
    }
    if (status > 0) {
        status = PyWeakref_GetRef(found, &known);
    }
    if (status >= 0 && known == context) {
        status = begin_adoption(state, context, record, NULL, state->SEVERAL, batch);
    } else if (status >= 0) {
        status = NOT_PLAIN;
    }
    Py_XDECREF(known);
    Py_XDECREF(found);
    Py_XDECREF(key);
    Py_XDECREF(contexts);
    Py_DECREF(batch);
    return status;
}

/* Whether a flow's record is what adoption.py makes. */
static int is_record(PyObject *record) {
    return PyList_CheckExact(record) && PyList_GET_SIZE(record) == 5 &&
           PyWeakref_Check(PyList_GET_ITEM(record, 0)) && PyLong_Check(PyList_GET_ITEM(record, 3));
}

/* The same as adopt_plainly(), of a flow that has a `record`. */
static int adopt_again(State *state, PyObject *context, PyObject *current, PyObject *record) {
    PyObject *known, *token;
    int status, was_known;
    long stage;
    if (!is_record(record)) {
        return NOT_PLAIN;
    }
    if (PyWeakref_GetRef(PyList_GET_ITEM(record, 0), &known) < 0) {
        return -1;
    }
    was_known = known == context; /* neither goes away meanwhile: both are held by callers */
    if (known == current) {
        if (was_known) {
            Py_DECREF(known);
            return at_stage(record, state->SEVERAL);
        }
        if (PyList_GET_ITEM(record, 4) != Py_None) {
            Py_DECREF(known);
            return adopt_in_batch(state, context, record);
        }
        stage = PyLong_AsLong(PyList_GET_ITEM(record, 3));
        if (PyErr_Occurred() || stage <= 0) {
            Py_DECREF(known);
            PyErr_Clear();
            return NOT_PLAIN; /* this may become a batch */
        }
    } else if (current != PyList_GET_ITEM(record, 1)) {
        Py_XDECREF(known);
        return NOT_PLAIN; /* another context is on top */
    } else if (was_known) { /* the flow has let go since, and gets another item of the same context */
        Py_DECREF(known);
        token = attach(state, context);
        Py_XDECREF(token);
        return token == NULL ? -1 : at_stage(record, state->FRESH);
    }
    Py_XDECREF(known);
    status = PyObject_IsTrue(PyList_GET_ITEM(record, 1));
    if (status != 0) {
        return status < 0 ? -1 : NOT_PLAIN; /* the item may be a stranger's */
    }
    return begin_adoption(state, context, record, NULL, state->FRESH, Py_None);
}

/* Whether a flow that has adopted nothing has a span of its own in `current`, which is in progress. */
static int find_out_whether_busy(State *state, PyObject *current) {
    PyObject *thread = NULL, *found = NULL, *end;
    int status = PyDict_Check(current) && state->span_key != NULL && state->bodies != NULL;
    if (status > 0 && PyDict_GET_SIZE(state->bodies) != 0) {
        thread = get_thread(state);
        status = thread == NULL ? -1 : PyDict_GetItemRef(state->bodies, thread, &found) >= 0;
        status = status > 0 ? found != current : status; /* it was handed off with the thread's work */
        Py_XDECREF(thread);
        Py_CLEAR(found);
    }
    if (status > 0) {
        status = PyDict_GetItemRef(current, state->span_key, &found);
    }
    if (status > 0 && found != state->invalid) {
        end = PyObject_GetAttr(found, state->names._end_time);
        status = end == NULL ? -1 : end == Py_None ? BUSY : 0;
        Py_XDECREF(end);
        if (end == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
            PyErr_Clear(); /* it is no span of the SDK */
            status = 0;
        }
    }
    Py_XDECREF(found);
    return status < 0 ? -1 : status == BUSY ? BUSY : NOT_PLAIN;
}

/* Do what `adopt` of adoption.py does with a context that is not empty, in the cases that are usual.
 * In any other, do nothing, and return NOT_PLAIN: that function is to be called. */
static int adopt_plainly(State *state, PyObject *context) {
    PyObject *current = get_current(state), *record;
    int status;
    if (current == NULL) {
        return -1;
    }
    if (get_adopted(state, &record) < 0) {
        Py_DECREF(current);
        return -1;
    }
    if (record != NULL && record != Py_None) {
        status = adopt_again(state, context, current, record);
    } else {
        status = PyObject_IsTrue(current);
        if (status > 0) {
            status = find_out_whether_busy(state, current);
        } else if (status == 0) {
            status = begin_adoption(state, context, NULL, current, state->FRESH, Py_None);
        }
    }
    Py_XDECREF(record);
    Py_DECREF(current);
    return status;
}

/* Have the flow adopt a context. Return whether the flow is busy. */
static int adopt_context(State *state, PyObject *context) {
    PyObject *busy;
    int status = PyObject_IsTrue(context);
    status = status > 0 ? adopt_plainly(state, context) : status < 0 ? -1 : NOT_PLAIN;
    if (status != NOT_PLAIN) {
        return status < 0 ? -1 : status == BUSY;
    }
    busy = call(state->twin, context);
    status = busy == NULL ? -1 : PyObject_IsTrue(busy);
    Py_XDECREF(busy);
    return status;
}

/* adopt(context), which does what adoption.py's function does. */
static PyObject *adopt(PyObject *module, PyObject *context) {
    State *state = PyModule_GetState(module);
    int busy = expect(state, 0, 0, 0) < 0 ? -1 : adopt_context(state, context);
    return busy < 0 ? NULL : PyBool_FromLong(busy);
}

/* adopt_or(twin, span_key, invalid, known): return adopt(), which leaves what is not plain to its `twin`. It
 * finds the span of a context by that key; `invalid` stands for none. `known` is the descriptor of the slot
 * in which a batch has its contexts, weakly, by their ids. */
static PyObject *adopt_or(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    State *state = PyModule_GetState(module);
    if (count != 4) {
        PyErr_SetString(PyExc_TypeError, "wrong number of arguments");
        return NULL;
    }
    Py_XSETREF(state->twin, Py_NewRef(args[0]));
    Py_XSETREF(state->span_key, Py_NewRef(args[1]));
    Py_XSETREF(state->invalid, Py_NewRef(args[2]));
    Py_XSETREF(state->known, Py_NewRef(args[3]));
    return PyObject_GetAttrString(module, "adopt");
}
