/* Done-callbacks of futures, and the events of sched. */
#pragma once
#include "calls.h"
#include "methods.h"

enum { STOCK = MARK, LOOP = MARK, ASKED }; /* the class of the future; the code of the loop */

/* add_done_callback(self, fn) of a future */
static PyObject *add_callback(State *state, Method *self, PyObject *const *args, Py_ssize_t count) {
    PyObject *call[2] = {args[0]}, *context = NULL, *module = NULL, *nothing;
    int status = is_same(PART(self, SEAM), state->slots.capture, state->capture);
    if (status > 0 && (PyObject *)Py_TYPE(args[0]) == PART(self, STOCK) && PyCallable_Check(args[1]) &&
        !PyObject_TypeCheck(args[1], (PyTypeObject *)state->Call)) {
        module = PyObject_GetAttr(args[1], state->names.__module__);
    }
    if (module != NULL && PyUnicode_Check(module)) {
        if (PyUnicode_CompareWithASCIIString(module, "asyncio.futures") == 0) {
            Py_DECREF(module); /* asyncio's own, which has no work to do */
            return PyObject_Vectorcall(PART(self, PLAIN), args, count, NULL);
        }
        context = get_current(state);
    }
    Py_XDECREF(module);
    status = context == NULL ? -1 : PyObject_IsTrue(context);
    if (status >= 0) {
        PyObject *parts[2] = {status ? context : state->NO_CONTEXT, args[1]};
        call[1] = make_direct(state->DirectCall, parts, 2, NULL);
    }
    Py_XDECREF(context);
    if (call[1] == NULL) {
        return leave_to_twin();
    }
    nothing = PyObject_Vectorcall(PART(self, PLAIN), call, count, NULL);
    Py_DECREF(call[1]);
    return nothing;
}

/* __iter__(self) of an event of sched, which the loop takes apart to run its action */
static PyObject *iterate(State *state, Method *self, PyObject *const *args, Py_ssize_t Py_UNUSED(count)) {
    PyFrameObject *frame = PyThreadState_GetFrame(PyThreadState_Get());
    PyObject *code = frame == NULL ? NULL : (PyObject *)PyFrame_GetCode(frame);
    int status = code != PART(self, LOOP) || !PyTuple_Check(args[0]) || PyTuple_GET_SIZE(args[0]) < 4;
    Py_XDECREF(code);
    Py_XDECREF(frame);
    status = status != 0 ? status : PyObject_IsTrue(PART(self, ASKED));
    if (status == 0 && (PyObject *)Py_TYPE(PyTuple_GET_ITEM(args[0], 3)) != state->DirectCall) {
        status = is_idle(state); /* in what an action without a context would run */
        status = status < 0 ? status : !status;
    }
    return status == 0 ? PyTuple_Type.tp_iter(args[0]) : leave_to_twin();
}
