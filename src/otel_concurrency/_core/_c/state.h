/* What belongs to the module, and so to one interpreter. */
#pragma once
#include "older_versions.h"

/* Names of attributes. */
#define NAMES(X) \
    X(_result) X(future) X(__module__) X(_end_time) X(_otel_concurrency_pairs) X(pop) X(popleft) X(put) \
    X(take) X(forget) X(to_pass) X(descriptor) X(first) X(gave_contexts) X(loans) X(settled) X(_encoded) \
    X(_decoded) X(get_global_textmap) X(__init__) X(__new__) X(get_ident)

/* Slots of a seam. */
#define SLOTS(X) X(capture) X(current) X(change)

/* Objects of handoff.py. */
#define OBJECTS(X) \
    X(adopted) X(bodies) X(ages) X(Context) X(FRESH) X(SEVERAL) X(NO_CONTEXT) X(Call) X(capture) \
    X(capture_nothing) X(get_current) X(attach) X(detach) X(report_raised)

typedef struct {
    int has_adopted;     /* whether handoff.py was told that a flow has adopted something */
    PyObject *namespace; /* of handoff.py; NULL until it calls bind() */
    PyObject *variable;  /* that of which `attach` is a method, or NULL */
    PyObject *twin;      /* `adopt` of adoption.py */
    PyObject *span_key;  /* the key of a context's span */
    PyObject *invalid;   /* the span that stands for none */
    PyObject *known;     /* the descriptor of the slot in which a batch has its contexts */
    PyObject *token;     /* of what the collection that is running has attached, or NULL */
    PyObject *record;    /* what the flow had adopted when it began, or NULL */
    PyObject *empty;     /* a tuple */
    PyObject *deque;     /* the class of the pairs beside most queues, and its methods */
    PyObject *append, *pop, *popleft;
    PyObject *Method;    /* the class of what method() returns */
    PyObject *DirectCall;
#define X(name) PyObject *name;
    OBJECTS(X)
#undef X
    struct {
#define X(name) PyObject *name;
        NAMES(X)
#undef X
    } names;
    struct {
#define X(name) PyObject *name;
        SLOTS(X)
#undef X
    } slots; /* their descriptors */
} State;

/* All that a collection has to know. */
#define REFERENCES(X) \
    X(namespace) X(variable) X(twin) X(span_key) X(invalid) X(known) X(token) X(record) X(empty) X(deque) \
    X(append) X(pop) X(popleft) X(Method) X(DirectCall) OBJECTS(X)

/* Call a function of handoff.py, with an argument or NULL. */
static PyObject *call(PyObject *function, PyObject *argument) {
    PyObject *result;
    if (function == NULL) { /* the interpreter is ending */
        PyErr_SetString(PyExc_RuntimeError, "bind() was not called");
        return NULL;
    }
    Py_INCREF(function);
    result = argument == NULL ? PyObject_CallNoArgs(function) : PyObject_CallOneArg(function, argument);
    Py_DECREF(function);
    return result;
}

/* Return the number of the present thread. The function for it is looked up each time: an adapter of green
 * threads replaces it. */
static PyObject *get_thread(State *state) {
    PyObject *name = state->names.get_ident, *get_ident = NULL, *thread = NULL;
    if (state->namespace == NULL || PyDict_GetItemRef(state->namespace, name, &get_ident) >= 0) {
        thread = call(get_ident, NULL);
    }
    Py_XDECREF(get_ident);
    return thread;
}

/* --- the current context -------------------------------------------------------------------------------- */

static PyObject *get_current(State *state) {
    PyObject *context = NULL;
    if (state->variable == NULL) {
        return call(state->get_current, NULL);
    }
    if (PyContextVar_Get(state->variable, NULL, &context) == 0 && context == NULL) {
        PyErr_SetObject(PyExc_LookupError, state->variable);
    }
    return context;
}

static PyObject *attach(State *state, PyObject *context) {
    return state->variable == NULL ? call(state->attach, context)
                                   : PyContextVar_Set(state->variable, context);
}

static int detach(State *state, PyObject *token) {
    PyObject *nothing;
    if (state->variable != NULL) {
        return PyContextVar_Reset(state->variable, token);
    }
    nothing = call(state->detach, token);
    Py_XDECREF(nothing);
    return nothing == NULL ? -1 : 0;
}

/* --- what the flow has adopted -------------------------------------------------------------------------- */

/* Set `record` to what the flow has adopted, or to None. */
static int get_adopted(State *state, PyObject **record) {
    *record = NULL;
    if (state->adopted == NULL) {
        call(NULL, NULL);
        return -1;
    }
    return PyContextVar_Get(state->adopted, NULL, record);
}

static int set_adopted(State *state, PyObject *record) {
    PyObject *token = PyContextVar_Set(state->adopted, record);
    Py_XDECREF(token);
    return token == NULL ? -1 : 0;
}

/* Whether the flow is in no context, and has adopted nothing. */
static int is_idle(State *state) {
    PyObject *record, *current = NULL;
    int status = get_adopted(state, &record);
    if (status == 0 && (record == NULL || record == Py_None)) {
        current = get_current(state);
        status = current == NULL ? -1 : PyObject_Not(current);
    }
    Py_XDECREF(record);
    Py_XDECREF(current);
    return status;
}

static int expect(State *state, Py_ssize_t count, Py_ssize_t least, Py_ssize_t most) {
    if (state->namespace == NULL) {
        call(NULL, NULL);
        return -1;
    }
    if (count < least || count > most) {
        PyErr_SetString(PyExc_TypeError, "wrong number of arguments");
        return -1;
    }
    return 0;
}
