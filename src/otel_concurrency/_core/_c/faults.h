/* Faults of the library: reported, and never the program's. */
#pragma once
#include "state.h"

/* Report the raised exception as a fault of the library, and clear it. Where it is no `Exception`,
 * it is put in `interrupt` instead, to be raised when the context is detached. */
static void report(State *state, const char *step, PyObject **interrupt) {
    PyObject *error, *function, *reported;
    if (PyErr_ExceptionMatches(PyExc_Exception)) {
        error = PyErr_GetRaisedException();
        function = Py_XNewRef(state->report_raised);
        reported = function == NULL ? NULL : PyObject_CallFunction(function, "sO", step, error);
        Py_XDECREF(function);
        Py_DECREF(error);
        Py_XDECREF(reported);
        if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_Exception)) {
            PyErr_Clear(); /* it cannot be reported */
            return;
        }
    }
    error = PyErr_GetRaisedException();
    Py_XSETREF(*interrupt, error);
}

/* Return what the program's call has returned, or raise again what it has `raised`. An `interrupt`
 * of the library's own steps replaces both. */
static PyObject *outcome(PyObject *result, PyObject *raised, PyObject *interrupt) {
    if (interrupt != NULL) {
        Py_XDECREF(result);
        if (raised != NULL) {
            PyException_SetContext(interrupt, raised);
        }
        PyErr_SetRaisedException(interrupt);
        return NULL;
    }
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
    return result;
}
