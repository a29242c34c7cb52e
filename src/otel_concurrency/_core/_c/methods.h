/* Methods that the program sees: what all kinds of them share. */
#pragma once
#include "slots.h"
#include "state.h"

/* The method of a class that the program sees. It does by its C function what is usual, and leaves to
 * its twin what is not. In all that can be read from it or set it is its twin: a function in Python. */
typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    const struct Usual *usual;
    PyObject *parts; /* a tuple: never changed, and so no part of a cycle of its own making */
    PyObject *weak_references;
} Method;

/* What is in that tuple: the kind, the twin, and what that works with, in the order in which Python passes
 * it. Most kinds begin with these; each names what it has beside them. */
enum { KIND, TWIN, SEAM, PLAIN, MARK, DELIVER, LEND, MORE };
#define PART(method, number) PyTuple_GET_ITEM((method)->parts, number)

enum { MOST = 6 }; /* arguments that are usual */

/* What a method of a kind does where all is usual. */
struct Usual {
    const char *kind;
    Py_ssize_t parts, least, most; /* how many arguments are usual, with the object */
    /* Returns NULL without an exception where it has done nothing, since something is not usual. */
    PyObject *(*run)(State *, Method *, PyObject *const *args, Py_ssize_t count);
};

/* Nothing was done: leave the call, and a fault so far, to the twin. */
static PyObject *leave_to_twin(void) {
    if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();
    }
    return NULL;
}

/* Whether an item need not be noted, of which a flow with a span of its own has taken some more. */
static int is_passed(State *state, PyObject *loans, PyObject *descriptor) {
    PyObject *left = read_slot(loans, descriptor), *less = NULL;
    long number = left == NULL ? 0 : PyLong_AsLong(left);
    Py_XDECREF(left);
    if (number > 0 && (less = PyLong_FromLong(number - 1)) != NULL) {
        PyObject_SetAttr(loans, state->names.to_pass, less);
    }
    Py_XDECREF(less);
    return PyErr_Occurred() ? -1 : number > 0;
}
